// The sound of the microphone, run by node: what the filter keeps and what it stops, and the files that come out.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const folder = new URL("../../../whisper/server/page/", import.meta.url);
const text = readFileSync(new URL("pcm.js", folder)).toString("base64");
const { Decimator, HIGHEST_RATE, divisor, joined, keptRate, mixed, packed, wavHeader } = await import(`data:text/javascript;base64,${text}`);

const tone = (rate, frequency, seconds = 0.5) => Float32Array.from({ length: rate * seconds }, (_, i) => Math.sin((2 * Math.PI * frequency * i) / rate));
const kept = (samples, rate, size = samples.length) => {
  const decimator = new Decimator(divisor(rate));
  const pieces = [];
  for (let at = 0; at < samples.length; at += size) pieces.push(...decimator.push(samples.subarray(at, at + size)));
  return Float32Array.from([...pieces, ...decimator.finish()]);
};
const loudness = (samples) => Math.max(...samples.slice(500, -500).map(Math.abs));

test("every rate of a microphone becomes one that the server takes", () => {
  for (const rate of [8000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000]) {
    assert.ok(keptRate(rate) <= HIGHEST_RATE && keptRate(rate) >= 8000);
    assert.equal(keptRate(rate) * divisor(rate), rate);
  }
});

test("speech is kept as it is and in its place, what cannot be kept is stopped", () => {
  for (const rate of [44100, 48000, 96000]) {
    for (const frequency of [100, 1000, 4000, 7900]) {
      const wanted = tone(keptRate(rate), frequency);
      const found = kept(tone(rate, frequency), rate);
      assert.equal(found.length, wanted.length);
      const worst = Math.max(...found.slice(500, -500).map((sample, i) => Math.abs(sample - wanted[i + 500])));
      assert.ok(worst < 0.002, `${rate} ${frequency} ${worst}`);
    }
    for (const frequency of [13000, 16000, 20000]) assert.ok(loudness(kept(tone(rate, frequency), rate)) < 0.002, `${rate} ${frequency}`);
  }
});

test("pieces of any size make the same sound, and none is lost", () => {
  for (const rate of [16000, 44100, 192000]) {
    const samples = tone(rate, 440, 0.1).map((sample, i) => sample * Math.cos(i));
    const whole = kept(samples, rate);
    assert.equal(whole.length, Math.ceil(samples.length / divisor(rate)));
    for (const size of [1, 128, 1000]) assert.deepEqual(kept(samples, rate, size), whole);
  }
});

test("channels are mixed, loud samples are clipped, pieces are joined", () => {
  assert.deepEqual([...mixed([new Float32Array([1, 0.5]), new Float32Array([0, -0.5])])], [0.5, 0]);
  assert.deepEqual([...packed([0, 1, -1, 3, -3, 0.5])], [0, 32767, -32767, 32767, -32767, 16384]);
  assert.deepEqual([...joined([Int16Array.of(1, 2), new Int16Array(0), Int16Array.of(3)])], [1, 2, 3]);
});

test("the header of a file says what follows", () => {
  const view = new DataView(wavHeader(22050, 1000));
  const word = (at) => String.fromCharCode(...new Uint8Array(view.buffer, at, 4));
  assert.deepEqual([word(0), word(8), word(12), word(36)], ["RIFF", "WAVE", "fmt ", "data"]);
  assert.deepEqual([view.getUint32(4, true), view.getUint32(24, true), view.getUint32(28, true), view.getUint32(40, true)], [1036, 22050, 44100, 1000]);
  assert.deepEqual([view.getUint16(20, true), view.getUint16(22, true), view.getUint16(34, true)], [1, 1, 16]);
});
