// Samples of a microphone: channels mixed, brought to a rate that suits speech, written in 16 bits; headers of WAV files.

export const HIGHEST_RATE = 24_000; // samples a second that are kept: all of speech, and an hour is 173 MB
const CROSSINGS = 16; // of zero, of the filter, on each side
const CUT = 0.9; // where the filter cuts, as a share of half the new rate

/** By what a rate is divided, so that at most `HIGHEST_RATE` samples a second are left. */
export const divisor = (rate) => Math.max(1, Math.ceil(rate / HIGHEST_RATE));

/** The rate that is left, in whole samples a second. */
export const keptRate = (rate) => Math.round(rate / divisor(rate));

/** The taps of a low-pass filter for one sample of `factor`: a sinc in a Blackman window, whose sum is 1. */
function lowPass(factor) {
  if (factor === 1) return new Float32Array([1]);
  const half = CROSSINGS * factor;
  const taps = Float64Array.from({ length: 2 * half + 1 }, (_, i) => {
    const x = ((i - half) * CUT) / factor;
    const turn = (Math.PI * i) / half;
    return (x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1) * (0.42 - 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn));
  });
  const sum = taps.reduce((all, tap) => all + tap, 0);
  return Float32Array.from(taps, (tap) => tap / sum);
}

/** Filters sound that comes in pieces, and keeps one sample of `factor`; no delay, whatever the pieces. */
export class Decimator {
  constructor(factor) {
    this.factor = factor;
    this.taps = lowPass(factor);
    this.half = (this.taps.length - 1) / 2;
    this.held = new Float32Array(this.half); // what was heard and is still needed; silence before the beginning
  }

  push(samples) {
    const { taps, factor } = this;
    const all = new Float32Array(this.held.length + samples.length);
    all.set(this.held);
    all.set(samples, this.held.length);
    const n = Math.max(0, Math.floor((all.length - taps.length) / factor) + 1);
    const kept = new Float32Array(n);
    for (let k = 0; k < n; k++) {
      let sum = 0;
      for (let i = 0, at = k * factor; i < taps.length; i++) sum += taps[i] * all[at + i];
      kept[k] = sum;
    }
    this.held = all.slice(n * factor);
    return kept;
  }

  /** What is left when no more comes. */
  finish() {
    return this.push(new Float32Array(this.half));
  }
}

/** One channel of several: their mean. */
export function mixed(channels) {
  if (channels.length === 1) return channels[0];
  return Float32Array.from(channels[0], (_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

/** Samples in 16 bits; what is too loud is clipped. */
export const packed = (samples) => Int16Array.from(samples, (sample) => Math.round(Math.max(-1, Math.min(1, sample)) * 32767));

/** Several pieces as one. */
export function joined(pieces) {
  const whole = new Int16Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** The 44 bytes before the samples of a WAV file with one channel of 16 bits. */
export function wavHeader(rate, bytes) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // samples as they are
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return view.buffer;
}
