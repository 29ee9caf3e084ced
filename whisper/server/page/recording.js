// What is seen of a recording: the button, the bar with captions while it runs, and what an earlier one has left.
import { captions } from "./captions.js";
import { handOver, meter, record, recorder, stop } from "./recorder.js";
import { Tape, findKept, kept } from "./tape.js";
import { clock, length } from "./time.js";
import { Dialog, html, tell, useEffect, useLayoutEffect, useRef, useState, useStore } from "./ui.js";

const NEAR = 40; // pixels from the end of the captions within which they follow what is said

export function RecordButton() {
  const { state } = useStore(recorder);
  return html`<button type="button" class="record" disabled=${state !== "idle"} onClick=${record}><span class="dot"></span>Record</button>`;
}

/** Why there is no recording, or how it ended. */
export function RecorderMessage() {
  const { state, message } = useStore(recorder);
  return html`<div role="alert">${state === "idle" && message && html`<p class="notice">${message}</p>`}</div>`;
}

function Level() {
  const { seconds, level, isSilent } = useStore(meter);
  const share = Math.round(level * 100);
  return html`<span class="clock">${clock(seconds)}</span>
    <div class="level" role="meter" aria-label="Level" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${share}>
      <div style=${{ width: `${share}%` }}></div></div>
    ${isSilent && html`<span class="bad">Nothing is heard. Is the microphone muted?</span>`}`;
}

function LiveText() {
  const { items, message } = useStore(captions);
  const box = useRef(null);
  const follows = useRef(true);
  useLayoutEffect(() => {
    if (follows.current) box.current.scrollTop = box.current.scrollHeight;
  }, [items]);
  const scrolled = ({ target }) => { follows.current = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR; };
  const said = items.filter((item) => item.stable || item.interim);
  return html`<div class="captions" ref=${box} tabindex="0" role="log" aria-live="off" aria-label="Live captions" dir="auto" onScroll=${scrolled}>
      ${said.length ? said.map((item) => html`<p key=${item.id} dir="auto">${item.stable}<span class="interim">${item.interim}</span></p>`)
        : html`<p class="quiet">What is said appears here.</p>`}</div>
    <div role="status">${message && html`<p class="quiet">${message}</p>`}</div>`;
}

/** Lies over every view while something is recorded. */
export function RecordingBar() {
  const { state, message } = useStore(recorder);
  if (state === "idle") return null;
  if (state === "asking") return html`<section class="recording" aria-label="Recording"><p role="status">The browser asks whether this page may use the microphone.</p></section>`;
  return html`<section class="recording" aria-label="Recording">
    <div class="recording-head"><span class="dot on"></span><${Level} /><span class="spread"></span>
      <button type="button" class="main" disabled=${state === "saving"} onClick=${() => stop()}>Stop</button></div>
    <${LiveText} />
    <div role="alert">${message && html`<p class="notice">${message}</p>`}</div></section>`;
}

function KeptRow({ about }) {
  const [asks, setAsks] = useState(false);
  const withTape = async (action) => {
    try {
      const tape = await Tape.again(about);
      if (tape) await action(tape).catch((error) => tape.leave().then(() => { throw error; }));
      await findKept();
    } catch (error) {
      tell(error.message);
    }
  };
  const save = async (tape) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await tape.file());
    link.download = `${about.name.replace(":", "-")}.wav`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    await tape.leave();
  };
  return html`<li class="row"><div class="what"><strong>${about.name}</strong>
      <span class="quiet">${length(about.seconds)}, kept in this browser and not yet in the library</span></div>
    <div class="acts"><button type="button" onClick=${() => withTape(handOver)}>Add to the library</button>
      <button type="button" onClick=${() => withTape(save)}>Save as a file</button>
      <button type="button" class="danger" onClick=${() => setAsks(true)}>Delete</button></div>
    ${asks && html`<${Dialog} title="Delete the recording?" onClose=${() => setAsks(false)}>
      <p><strong>${about.name}</strong> is only in this browser, and will be gone.</p>
      <p class="buttons"><button type="button" class="danger" onClick=${() => withTape((tape) => tape.erase())}>Delete</button>
        <button type="button" onClick=${() => setAsks(false)}>Keep</button></p><//>`}</li>`;
}

/** Recordings that a closed tab, a crash or a cancelled upload has left. */
export function Kept() {
  const left = useStore(kept);
  useEffect(() => void findKept().catch(() => {}), []);
  if (!left.length) return null;
  return html`<ul class="rows" aria-label="Kept in this browser">${left.map((about) => html`<${KeptRow} key=${about.id} about=${about} />`)}</ul>`;
}
