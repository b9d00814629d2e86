// One session with the service: audio out, messages in.
//
//   connecting --Ready--> live --end()--> finishing --Flushed--> closed        any --Error, close--> failed
//
// end() while connecting is remembered until Ready: a short file is over before the service answers.

import { decode, encodeAudio, encodeNumbered } from "./msgpack.js";

// A service that cannot keep up stops reading; then audio piles up here. 20 s of it are too much.
const MOST_UNSENT_BYTES = 20 * 24000 * 5;

export class Session {
  // handlers: {state(name), message(fields), failed(text)}
  constructor(url, handlers) {
    this.handlers = handlers;
    this.state = "connecting";
    this.waiting = [];
    this.ending = false;
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => this.receive(decode(data));
    this.socket.onclose = ({ code }) => this.closed(code);
    handlers.state(this.state);
  }

  send(pieces) {
    if (this.state === "connecting") {
      this.waiting.push(...pieces);
      return;
    }
    if (this.state !== "live") return;
    if (this.socket.bufferedAmount > MOST_UNSENT_BYTES) {
      this.fail("the service does not keep up with the audio");
      return;
    }
    for (const piece of pieces) if (piece.length) this.socket.send(encodeAudio(piece));
  }

  // Ask for the words that are still inside the model.
  end() {
    this.ending = true;
    if (this.state !== "live") return;
    this.socket.send(encodeNumbered("Flush", 1));
    this.enter("finishing");
  }

  close() {
    this.enter("closed");
    this.socket.close(1000);
  }

  receive(fields) {
    switch (fields.type) {
      case "Ready":
        this.enter("live");
        this.send(this.waiting.splice(0));
        if (this.ending) this.end();
        break;
      case "Flushed":
        this.close();
        break;
      case "Error":
        this.fail(fields.message);
        break;
      default:
        this.handlers.message(fields);
    }
  }

  closed(code) {
    this.fail(
      this.state === "connecting"
        ? "no connection: is the service running, and is the key (under Settings) one of its authorized_ids?"
        : `the connection was closed (code ${code})`,
    );
  }

  fail(text) {
    if (this.state === "closed" || this.state === "failed") return;
    this.enter("failed");
    this.socket.close();
    this.handlers.failed(text);
  }

  enter(state) {
    this.state = state;
    this.handlers.state(state);
  }
}
