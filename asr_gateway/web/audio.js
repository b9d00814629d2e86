// Where audio comes from: a microphone, or a file that is played. Both give pieces of 24 kHz mono to `onPieces`.

export const SAMPLE_RATE = 24000;
const PIECE_SAMPLES = 1920;

const TABLE_PER_SAMPLE = 1024;

// A windowed sinc, looked up where it is needed: any rate to 24 kHz, piece by piece.
export class Resampler {
  constructor(fromRate) {
    this.step = fromRate / SAMPLE_RATE;
    const cutoff = Math.min(1, 1 / this.step) * 0.94;
    // Half the filter's width in input samples: 16 zero crossings of the lower of the two rates.
    this.half = Math.ceil(16 / cutoff);
    this.table = Float32Array.from({ length: this.half * TABLE_PER_SAMPLE + 1 }, (_, index) => {
      const distance = index / TABLE_PER_SAMPLE;
      const angle = Math.PI * distance * cutoff;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * distance) / (this.half + 1));
      return (index === 0 ? 1 : Math.sin(angle) / angle) * window * cutoff;
    });
    this.kept = new Float32Array(this.half);
    this.position = this.half;
  }

  feed(piece) {
    if (this.step === 1) return piece.slice();
    const input = new Float32Array(this.kept.length + piece.length);
    input.set(this.kept);
    input.set(piece, this.kept.length);
    const output = [];
    while (this.position + this.half < input.length) {
      output.push(this.sampleAt(input, this.position));
      this.position += this.step;
    }
    const used = Math.max(0, Math.floor(this.position) - this.half);
    this.kept = input.slice(used);
    this.position -= used;
    return Float32Array.from(output);
  }

  sampleAt(input, position) {
    const last = Math.floor(position + this.half);
    let sum = 0;
    for (let index = Math.max(0, Math.ceil(position - this.half)); index <= last; index += 1) {
      sum += input[index] * this.table[Math.round(Math.abs(position - index) * TABLE_PER_SAMPLE)];
    }
    return sum;
  }
}

// stop() may come while start() still waits for the browser. Then start() gives back what it is handed later, and what
// fails because of stop() is no error.
class Source {
  stopped = false;

  async start(onPieces) {
    try {
      await this.open(onPieces);
    } catch (error) {
      if (!this.stopped) throw error;
    }
    if (this.stopped) this.release();
  }

  stop() {
    this.stopped = true;
    this.release();
  }
}

// `onLost` is called when no more audio will come although nobody called stop().
export class Microphone extends Source {
  constructor(onLost = () => {}) {
    super();
    this.onLost = onLost;
  }

  async open(onPieces) {
    if (!navigator.mediaDevices) {
      throw new Error("browsers give the microphone only to pages of this machine (http://localhost) or over https");
    }
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false } });
    if (this.stopped) return;
    // Unplugged, or no longer allowed.
    for (const track of this.stream.getTracks()) track.onended = () => this.lost();
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("recorder.js");
    const resampler = new Resampler(this.context.sampleRate);
    this.node = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => onPieces([resampler.feed(data)]);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    await this.context.resume();
    // A telephone call, for one, takes the audio away and leaves the track.
    this.context.onstatechange = () => { if (this.context.state !== "running") this.lost(); };
  }

  lost() {
    if (!this.stopped) this.onLost();
  }

  release() {
    if (this.node) this.node.port.onmessage = null;
    this.stream?.getTracks().forEach((track) => track.stop());
    closeOnce(this.context);
  }
}

// Plays a file aloud and sends it at the same pace. `bytes` may be a promise: what goes wrong with it, start() reports.
export class Player extends Source {
  constructor(bytes, onEnd) {
    super();
    this.bytes = bytes;
    this.onEnd = onEnd;
  }

  async open(onPieces) {
    // Decoding into a context of 24 kHz resamples; its length plays no part.
    const decoded = await new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(await this.bytes);
    if (this.stopped) return;
    const pcm = mono(decoded);
    this.context = new AudioContext();
    const source = new AudioBufferSourceNode(this.context, { buffer: decoded });
    source.connect(this.context.destination);
    source.start();
    const startedAt = performance.now();
    let sent = 0;
    this.timer = setInterval(() => {
      const due = Math.min(((performance.now() - startedAt) / 1000) * SAMPLE_RATE, pcm.length);
      const pieces = [];
      while (sent + PIECE_SAMPLES <= due || (sent < pcm.length && due === pcm.length)) {
        pieces.push(pcm.subarray(sent, sent + PIECE_SAMPLES));
        sent += PIECE_SAMPLES;
      }
      if (pieces.length) onPieces(pieces);
      if (sent >= pcm.length) {
        clearInterval(this.timer);
        this.onEnd();
      }
    }, 40);
  }

  release() {
    clearInterval(this.timer);
    closeOnce(this.context);
  }
}

// Closing it again is refused, and already so while it closes.
function closeOnce(context) {
  context?.close().catch(() => {});
}

function mono(decoded) {
  const mixed = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel += 1) {
    decoded.getChannelData(channel).forEach((sample, index) => { mixed[index] += sample / decoded.numberOfChannels; });
  }
  return mixed;
}
