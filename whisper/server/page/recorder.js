// Recording from the microphone: sound goes onto a tape and to the live captions; at the end the tape is uploaded.
import { Captions } from "./captions.js";
import { formFields } from "./options.js";
import { keptRate } from "./pcm.js";
import { Tape, findKept } from "./tape.js";
import { Store, tell } from "./ui.js";
import { addFiles } from "./uploads.js";

const MICROPHONE = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };
const FLOOR = -60; // decibels below full scale that the meter shows as nothing
const FALL = 0.04; // of the meter, from block to block
const SILENT = 1e-4; // what a muted microphone stays below
const SILENT_S = 5;
const LAST_BLOCK = 2000; // milliseconds to wait for it
const CLOSING = 500; // milliseconds: a tab that is being closed loses its microphone first, and must not upload half a tape

export const recorder = new Store({ state: "idle", message: "" }); // state: "idle"|"asking"|"recording"|"saving"
export const meter = new Store({ seconds: 0, level: 0, isSilent: false });
let running = null;

/** Begin to record. */
export async function record() {
  if (recorder.value.state !== "idle") return;
  if (!window.isSecureContext || !navigator.mediaDevices || !navigator.locks) {
    recorder.set({ message: "Browsers give the microphone only to pages that come by https or from localhost. The server speaks https with --tls_certificate and --tls_key." });
    return;
  }
  recorder.set({ state: "asking", message: "" });
  try {
    running = await start();
    recorder.set({ state: "recording" });
  } catch (error) {
    recorder.set({ state: "idle", message: reasonOf(error) });
  }
}

/** End the recording, and put it into the library. */
export async function stop(message = "") {
  if (recorder.value.state !== "recording") return;
  recorder.set({ state: "saving" });
  const { tape } = running;
  await running.end();
  running = null;
  try {
    if (tape.about.seconds > 0) await handOver(tape);
    else message ||= "Nothing came from the microphone.";
  } catch (error) {
    message = `The recording is kept in this browser, but cannot be read now: ${error.message}`;
    await tape.leave().catch(() => {});
  }
  recorder.set({ state: "idle", message });
  if (message) tell(message); // in other views than the first, too
}

/** Upload a tape; it is erased when the server has it. */
export async function handOver(tape) {
  const file = await tape.file();
  const onEnd = (recording) => {
    if (recording === null) {
      tape.leave().catch((error) => tell(error.message));
      return;
    }
    tape.erase().catch((error) => tell(error.message));
    if (location.hash.startsWith("#/r/")) tell(`${file.name} is in the library`);
    else location.hash = `#/r/${recording.id}`;
  };
  addFiles([{ file, folder: "", onEnd }]);
}

function reasonOf(error) {
  const known = {
    NotAllowedError: "The browser does not let this page use the microphone. Allow it beside the address of the page, and record again.",
    NotFoundError: "There is no microphone on this device, or the browser finds none.",
    NotReadableError: "The microphone cannot be opened; another program may be using it.",
  };
  return known[error.name] || `The microphone cannot be used: ${error.message}`;
}

function nameOf(date) {
  const two = (number) => String(number).padStart(2, "0");
  return `Recording ${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

async function start() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: MICROPHONE });
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule(new URL("microphone.js", import.meta.url).href);
    await context.resume();
    const rate = keptRate(context.sampleRate);
    const trouble = (error) => recorder.set({
      message: `The browser keeps no more of the recording (${error.message}); the rest lies in memory. Do not close this tab.` });
    const tape = await Tape.start(nameOf(new Date()), rate, trouble);
    return new Recording(stream, context, tape, new Captions(rate, Object.fromEntries(formFields())));
  } catch (error) {
    release(stream, context);
    throw error;
  }
}

function release(stream, context) {
  for (const track of stream.getTracks()) track.stop();
  context.close();
}

class Recording {
  constructor(stream, context, tape, live) {
    Object.assign(this, { stream, context, tape, live, silence: 0 });
    meter.set({ seconds: 0, level: 0, isSilent: false });
    this.node = new AudioWorkletNode(context, "microphone");
    this.over = new Promise((resolve) => {
      this.node.port.onmessage = ({ data }) => (data === null ? resolve() : this.take(data));
    });
    context.createMediaStreamSource(stream).connect(this.node).connect(context.destination); // which gets silence: unheard nodes may sleep
    for (const track of stream.getAudioTracks()) {
      track.onended = () => setTimeout(() => running === this && stop("The microphone is gone; what was recorded until then goes into the library."), CLOSING);
    }
    context.onstatechange = () => this.paused();
    this.awake = navigator.wakeLock?.request("screen").catch(() => null); // a phone that sleeps hears nothing
    addEventListener("beforeunload", stay);
  }

  take(samples) {
    if (!samples.length) return;
    this.tape.append(samples);
    this.live.push(samples);
    const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0) / 32768;
    const loud = Math.max(0, 1 - (20 * Math.log10(Math.max(peak, 1e-6))) / FLOOR);
    this.silence = peak < SILENT ? this.silence + samples.length : 0;
    const level = Math.max(loud, meter.value.level - FALL);
    meter.set({ seconds: this.tape.about.seconds, level, isSilent: this.silence > SILENT_S * this.tape.about.rate });
  }

  paused() {
    const { state } = this.context;
    if (state === "closed") return;
    recorder.set({ message: state === "running" ? "" : "The browser has paused the microphone, for a call perhaps; the recording goes on after it." });
    if (state === "suspended") this.context.resume().catch(() => {});
  }

  async end() {
    this.context.onstatechange = null;
    this.node.port.postMessage("finish");
    await Promise.race([this.over, new Promise((resolve) => setTimeout(resolve, LAST_BLOCK))]);
    this.live.end();
    release(this.stream, this.context);
    (await this.awake)?.release();
    removeEventListener("beforeunload", stay);
  }
}

const stay = (event) => event.preventDefault(); // the browser asks before it closes a tab that records

findKept().catch(() => {}); // a browser without storage has kept nothing
