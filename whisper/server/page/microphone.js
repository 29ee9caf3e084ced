// The sound of the microphone, on the browser's thread for sound: mixed, packed, and sent to the page in blocks.
import { Decimator, divisor, keptRate, mixed, packed } from "./pcm.js";

const BLOCKS = 20; // a second

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.decimator = new Decimator(divisor(sampleRate));
    this.block = new Int16Array(Math.round(keptRate(sampleRate) / BLOCKS));
    this.n = 0;
    this.isOver = false;
    this.port.onmessage = () => this.finish();
  }

  process([channels]) {
    if (channels.length && !this.isOver) this.take(this.decimator.push(mixed(channels)));
    return !this.isOver;
  }

  take(samples) {
    for (const sample of packed(samples)) {
      this.block[this.n++] = sample;
      if (this.n === this.block.length) this.give();
    }
  }

  give() {
    this.port.postMessage(this.block.slice(0, this.n));
    this.n = 0;
  }

  finish() {
    if (this.isOver) return;
    this.take(this.decimator.finish());
    this.give();
    this.isOver = true;
    this.port.postMessage(null);
  }
}

registerProcessor("microphone", Microphone);
