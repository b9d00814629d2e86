// As much of MessagePack as the protocol needs: maps with short keys out, every type but extensions in.

const utf8 = new TextEncoder();
const utf8Decoder = new TextDecoder();

function shortString(text) {
  const bytes = utf8.encode(text);
  if (bytes.length > 31) throw new RangeError(`${text} is longer than 31 bytes`);
  return [0xa0 | bytes.length, ...bytes];
}

// {type: "Audio", pcm: [float32, ...]}
export function encodeAudio(pcm) {
  const head = [0x82, ...shortString("type"), ...shortString("Audio"), ...shortString("pcm")];
  const bytes = new Uint8Array(head.length + 5 + pcm.length * 5);
  const view = new DataView(bytes.buffer);
  bytes.set(head);
  view.setUint8(head.length, 0xdd);
  view.setUint32(head.length + 1, pcm.length);
  let at = head.length + 5;
  for (const sample of pcm) {
    view.setUint8(at, 0xca);
    view.setFloat32(at + 1, sample);
    at += 5;
  }
  return bytes;
}

// {type, id}, with an id from 0 to 127
export function encodeNumbered(type, id) {
  return new Uint8Array([0x82, ...shortString("type"), ...shortString(type), ...shortString("id"), id & 0x7f]);
}

export function decode(buffer) {
  return new Reader(buffer).value();
}

class Reader {
  constructor(buffer) {
    this.view = new DataView(buffer);
    this.at = 0;
  }

  take(size) {
    const at = this.at;
    this.at += size;
    return at;
  }

  value() {
    const tag = this.view.getUint8(this.take(1));
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.map(tag & 0x0f);
    if (tag < 0xa0) return this.array(tag & 0x0f);
    if (tag < 0xc0) return this.string(tag & 0x1f);
    if (tag >= 0xe0) return tag - 0x100;
    const view = this.view;
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.bytes(view.getUint8(this.take(1)));
      case 0xc5: return this.bytes(view.getUint16(this.take(2)));
      case 0xc6: return this.bytes(view.getUint32(this.take(4)));
      case 0xca: return view.getFloat32(this.take(4));
      case 0xcb: return view.getFloat64(this.take(8));
      case 0xcc: return view.getUint8(this.take(1));
      case 0xcd: return view.getUint16(this.take(2));
      case 0xce: return view.getUint32(this.take(4));
      case 0xcf: return Number(view.getBigUint64(this.take(8)));
      case 0xd0: return view.getInt8(this.take(1));
      case 0xd1: return view.getInt16(this.take(2));
      case 0xd2: return view.getInt32(this.take(4));
      case 0xd3: return Number(view.getBigInt64(this.take(8)));
      case 0xd9: return this.string(view.getUint8(this.take(1)));
      case 0xda: return this.string(view.getUint16(this.take(2)));
      case 0xdb: return this.string(view.getUint32(this.take(4)));
      case 0xdc: return this.array(view.getUint16(this.take(2)));
      case 0xdd: return this.array(view.getUint32(this.take(4)));
      case 0xde: return this.map(view.getUint16(this.take(2)));
      case 0xdf: return this.map(view.getUint32(this.take(4)));
      default: throw new TypeError(`unknown MessagePack tag 0x${tag.toString(16)}`);
    }
  }

  bytes(size) {
    return new Uint8Array(this.view.buffer, this.take(size), size);
  }

  string(size) {
    return utf8Decoder.decode(this.bytes(size));
  }

  array(size) {
    return Array.from({ length: size }, () => this.value());
  }

  map(size) {
    const fields = {};
    for (let index = 0; index < size; index += 1) {
      const name = this.value();
      fields[name] = this.value();
    }
    return fields;
  }
}
