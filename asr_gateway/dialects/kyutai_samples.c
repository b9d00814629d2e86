/* Audio of the Kyutai dialect, from a masked WebSocket frame to samples in one pass.

       frame   ... mask[4] | 82 a4 "type" a5 "Audio" a3 "pcm" dc NNNN   ca VVVVVVVV   ca VVVVVVVV   ...
                            '------------------ head ----------' count  '- one row -'

   What this does is what kyutai.py does with numpy in four passes over bytes that were unmasked in a fifth; it knows
   the one form that nearly all messages have, and leaves all others, the wrong ones too, to kyutai.py. Compiled flavour
   only: without it, all messages go there. Five bytes a row and four a mask make a pattern of four rows. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include <stdint.h>
#include <string.h>

enum { MASK_BYTES = 4, COUNT_BYTES = 2, ROW_BYTES = 5, PATTERN_ROWS = 4, FLOAT32_PREFIX = 0xCA };

/* Big-endian bytes, loaded as they lie, as a number of this machine. */
static inline uint32_t from_big_endian(uint32_t bytes)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_bswap32(bytes);
#else
    return bytes;
#endif
}

/* Write the value of one row; return something else than 0 if it is none. */
static inline uint8_t unmask_row(const uint8_t *row, uint8_t prefix, uint32_t mask, uint32_t *out)
{
    uint32_t value;
    memcpy(&value, row + 1, sizeof value);
    *out = from_big_endian(value ^ mask);
    return row[0] ^ prefix;
}

/* Write the values of rows that lie masked, the first of them under the first byte of `mask`, each as the bits of its
   float32; return whether all rows are such. */
static int unmask_rows(const uint8_t *rows, Py_ssize_t n_rows, const uint8_t mask[MASK_BYTES], uint32_t *out)
{
    uint8_t prefixes[PATTERN_ROWS], wrong = 0;
    uint32_t masks[PATTERN_ROWS];
    for (int row = 0; row < PATTERN_ROWS; row++) {
        uint8_t turned[MASK_BYTES];
        for (int i = 0; i < MASK_BYTES; i++)
            turned[i] = mask[(row * ROW_BYTES + 1 + i) % MASK_BYTES];
        memcpy(&masks[row], turned, MASK_BYTES);
        prefixes[row] = FLOAT32_PREFIX ^ mask[row * ROW_BYTES % MASK_BYTES];
    }
    /* A whole pattern at a time: the compiler knows how many rows that is. */
    Py_ssize_t n_left = n_rows;
    for (; n_left >= PATTERN_ROWS; n_left -= PATTERN_ROWS, rows += PATTERN_ROWS * ROW_BYTES, out += PATTERN_ROWS)
        for (int row = 0; row < PATTERN_ROWS; row++)
            wrong |= unmask_row(rows + row * ROW_BYTES, prefixes[row], masks[row], out + row);
    for (int row = 0; row < n_left; row++)
        wrong |= unmask_row(rows + row * ROW_BYTES, prefixes[row], masks[row], out + row);
    return !wrong;
}

PyDoc_STRVAR(unmasked_doc, "unmasked(head: bytes, frame: bytes, begin: int) -> float32 [n] | None\n\n"
"Return the samples of one message, a copy in this machine's byte order.\n\n"
"Args:\n"
"    head: what the message begins with, up to its count of samples in two bytes.\n"
"    frame: a whole WebSocket frame whose payload is masked with the four bytes before it.\n"
"    begin: of the payload.\n\n"
"Returns:\n"
"    None if the message is anything else than such a head, a count and as many float32 numbers of MessagePack.");

static PyObject *unmasked(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
    (void)module;
    if (n_arguments != 3 || !PyBytes_Check(arguments[0]) || !PyBytes_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "unmasked takes bytes, bytes and an int");
        return NULL;
    }
    const Py_ssize_t begin = PyLong_AsSsize_t(arguments[2]);
    if (begin == -1 && PyErr_Occurred())
        return NULL;
    const uint8_t *head = (const uint8_t *)PyBytes_AS_STRING(arguments[0]);
    const uint8_t *frame = (const uint8_t *)PyBytes_AS_STRING(arguments[1]);
    const Py_ssize_t n_head = PyBytes_GET_SIZE(arguments[0]), n_frame = PyBytes_GET_SIZE(arguments[1]);
    if (begin < MASK_BYTES || begin > n_frame)
        Py_RETURN_NONE;
    const Py_ssize_t n_table = n_frame - begin - n_head - COUNT_BYTES;
    if (n_table <= 0 || n_table % ROW_BYTES)
        Py_RETURN_NONE;

    const uint8_t *mask = frame + begin - MASK_BYTES, *payload = frame + begin;
    for (Py_ssize_t i = 0; i < n_head; i++)
        if ((payload[i] ^ mask[i % MASK_BYTES]) != head[i])
            Py_RETURN_NONE;
    npy_intp n_rows = 0;
    for (Py_ssize_t i = n_head; i < n_head + COUNT_BYTES; i++)
        n_rows = n_rows << 8 | (payload[i] ^ mask[i % MASK_BYTES]);
    if (n_rows != n_table / ROW_BYTES)
        Py_RETURN_NONE;

    uint8_t mask_of_rows[MASK_BYTES];
    for (int i = 0; i < MASK_BYTES; i++)
        mask_of_rows[i] = mask[(n_head + COUNT_BYTES + i) % MASK_BYTES];
    PyObject *samples = PyArray_SimpleNew(1, &n_rows, NPY_FLOAT32);
    if (samples == NULL)
        return NULL;
    const uint8_t *rows = payload + n_head + COUNT_BYTES;
    if (!unmask_rows(rows, n_rows, mask_of_rows, PyArray_DATA((PyArrayObject *)samples))) {
        Py_DECREF(samples);
        Py_RETURN_NONE;
    }
    return samples;
}

static PyMethodDef methods[] = {
    {"unmasked", (PyCFunction)(void (*)(void))unmasked, METH_FASTCALL, unmasked_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kyutai_samples",
    .m_doc = "Audio of the Kyutai dialect, from a masked frame to samples in one pass.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_kyutai_samples(void)
{
    import_array();
    return PyModule_Create(&module);
}
