// As much of a browser as the page needs. Nothing happens by itself: a test says when, and what it is answered.

import { decode } from "./msgpack.js";

export const microphones = []; // each time that the page asked for one: {allow(), deny(text), live}
export const contexts = [];
export const recorders = [];
export const decodings = []; // each file that is decoded: {done(seconds), fail(text)}
export const sockets = [];
export const aloud = []; // what was played
export const alerts = [];

// When all that can go on has gone on.
export const settled = () => new Promise(setImmediate);

// --- the page --------------------------------------------------------------------------------------------

class Element {
  constructor() {
    Object.assign(this, { hidden: false, textContent: "", value: "", dataset: {}, children: [] });
    this.classList = { add() {}, remove() {} };
  }

  append(...children) { this.children.push(...children); }
  replaceChildren() { this.children = []; }
  querySelectorAll() { return []; }
  focus() {}
}

const elements = {};
export const $ = (id) => (elements[id] ??= new Element());

export const seen = () => ({
  state: $("state").textContent,
  button: $("stop").hidden ? "microphone" : "stop",
  error: $("error").hidden ? null : $("error").textContent,
});

globalThis.document = { getElementById: $, createElement: () => new Element(), activeElement: null };
globalThis.location = new URL("http://localhost:8080/");
globalThis.Option = class {};
globalThis.alert = (text) => alerts.push(text);

// --- the service -----------------------------------------------------------------------------------------

export const files = {}; // name: content; others are not there
globalThis.fetch = async (name) => {
  if (!(name in files)) return { ok: false, arrayBuffer: async () => new ArrayBuffer(9) };
  if (files[name] === "down") throw new TypeError("Failed to fetch");
  return { ok: true, json: async () => files[name], arrayBuffer: async () => new ArrayBuffer(8) };
};

globalThis.WebSocket = class {
  constructor() {
    Object.assign(this, { sent: [], bufferedAmount: 0, isOpen: true });
    sockets.push(this);
  }

  send(bytes) { this.sent.push(decode(bytes.buffer).type); }
  close() { this.isOpen = false; }
  // A message such as "Ready"; a socket that the page has closed delivers none.
  says(type) {
    const bytes = Uint8Array.from([0x81, 0xa4, ...Buffer.from("type"), 0xa0 | type.length, ...Buffer.from(type)]);
    if (this.isOpen) this.onmessage({ data: bytes.buffer });
  }

  breaks(code) {
    this.isOpen = false;
    this.onclose({ code });
  }
};

// --- audio -----------------------------------------------------------------------------------------------

function getUserMedia() {
  return new Promise((resolve, reject) => {
    const track = { stop() { microphone.live = false; } };
    const microphone = {
      live: false,
      allow() {
        microphone.live = true;
        resolve({ getTracks: () => [track] });
      },
      deny: (text) => reject(new Error(text)),
      unplug() {
        microphone.live = false;
        track.onended?.();
      },
    };
    microphones.push(microphone);
  });
}
Object.defineProperty(globalThis, "navigator", { value: { mediaDevices: { getUserMedia } }, configurable: true });

export const slow = {}; // slow.addModule or slow.resume = true: it lasts until slow.go()

globalThis.AudioContext = class {
  constructor() {
    Object.assign(this, { state: "suspended", sampleRate: 24000, isClosing: false });
    this.audioWorklet = { addModule: () => this.wait("addModule") };
    contexts.push(this);
  }

  async wait(what) {
    if (slow[what]) await new Promise((resolve) => { slow.go = resolve; });
  }

  async resume() {
    await this.wait("resume");
    if (this.isClosing) throw new Error("cannot resume a closed context");
    this.enter("running");
  }

  async close() {
    if (this.isClosing) throw new Error("cannot close a closed context");
    this.isClosing = true;
    await null;
    this.enter("closed");
  }

  enter(state) {
    this.state = state;
    this.onstatechange?.();
  }

  createMediaStreamSource() { return { connect() {} }; }
};

globalThis.AudioWorkletNode = class {
  constructor(context) {
    if (context.isClosing) throw new Error("no node in a closed context");
    this.port = {};
    recorders.push(this);
  }

  record() { this.port.onmessage?.({ data: new Float32Array(1024) }); }
};

globalThis.OfflineAudioContext = class {
  decodeAudioData(bytes) {
    return new Promise((resolve, reject) => {
      const samples = (seconds) => new Float32Array(seconds * 24000);
      decodings.push({
        bytes,
        done: (seconds) => resolve({
          length: seconds * 24000, numberOfChannels: 1, getChannelData: () => samples(seconds),
        }),
        fail: (text) => reject(new Error(text)),
      });
    });
  }
};

globalThis.AudioBufferSourceNode = class {
  constructor(context, { buffer }) { this.buffer = buffer; }
  connect() {}
  start() { aloud.push(this.buffer.length / 24000); }
};

// --- time ------------------------------------------------------------------------------------------------

let now = 0;
const timers = new Map();
Object.defineProperty(globalThis, "performance", { value: { now: () => now }, configurable: true });
globalThis.setInterval = (tick) => {
  const id = timers.size + 1;
  timers.set(id, tick);
  return id;
};
globalThis.clearInterval = (id) => { if (timers.has(id)) timers.set(id, null); };

export function pass(seconds) {
  now += 1000 * seconds;
  for (const tick of timers.values()) tick?.();
}

// --- what a test does ------------------------------------------------------------------------------------

export const press = (id) => $(id).onclick();

export function openFile(arrayBuffer = async () => new ArrayBuffer(8)) {
  $("file").onchange({ target: { files: [{ arrayBuffer }], value: "" } });
  return settled();
}

export async function speak() {
  press("microphone");
  microphones.at(-1).allow();
  await settled();
  sockets.at(-1).says("Ready");
  recorders.at(-1).record();
}
