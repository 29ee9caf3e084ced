// The edges of the chosen segment on the waveform: dragged, or moved by keys, they change its times.
import { trim } from "./document.js";
import { html, useRef, useState, useStore } from "./ui.js";
import { clock } from "./time.js";

const NARROWEST = 16; // pixels of a segment whose edges can be told apart
const STEP = 0.05; // seconds of a key
const LONG_STEP = 0.5;

export function Edges({ view, editor, uid, width, player }) {
  useStore(view.state);
  const { segments } = useStore(editor.state);
  const [moved, setMoved] = useState(null); // {start, end} while an edge is dragged
  const [held, hold] = useState(null); // the segment one of whose edges has the keys; that one stays, however narrow it gets
  const index = segments.findIndex((one) => one.uid === uid);
  if (index < 0 || !width) return null;
  const segment = segments[index];
  const { start, end } = moved || segment;
  const [left, right] = [view.place(start) * width, view.place(end) * width];
  if ((right - left < NARROWEST && !moved && held !== uid) || right < 0 || left > width) return null;
  const set = (times, step) => {
    const now = editor.state.value.segments.findIndex((one) => one.uid === uid);
    if (now < 0) return;
    editor.swap(now, 1, [trim(editor.state.value.segments[now], times.start, times.end)], step);
    editor.alignLater([uid]);
  };
  const edge = (name) => html`<${Edge} key=${name} name=${name} at=${name === "start" ? left : right} time=${name === "start" ? start : end} player=${player}
    limits=${limitsOf(segments, index, name)} seconds=${(x) => view.start + (x / width) * view.span}
    onDrag=${(time) => setMoved(time === null ? null : { start, end, [name]: time })}
    onSet=${(time, step) => { setMoved(null); set({ start: segment.start, end: segment.end, [name]: time }, step); }} onFocus=${() => hold(uid)} onLeave=${() => { hold(null); editor.endStep(); }} />`;
  const from = Math.max(left, 0);
  return html`<div class="stretch" style=${{ left: `${from}px`, width: `${Math.min(right, width) - from}px` }}></div>
    ${left >= 0 && edge("start")} ${right <= width && edge("end")}`;
}

const SHORTEST = 0.1; // seconds of a segment

/** How far an edge may go: to the segment beside it, where it is not over that already, and not over the other edge. */
function limitsOf(segments, index, name) {
  const { start, end } = segments[index];
  const [before, after] = [segments[index - 1], segments[index + 1]];
  if (name === "start") return [before && before.end <= start ? before.end : 0, Math.max(end - SHORTEST, start)];
  return [Math.min(start + SHORTEST, end), after && after.start >= end ? after.start : Infinity];
}

function Edge({ name, at, time, limits: [low, high], seconds, onDrag, onSet, onFocus, onLeave, player }) {
  const held = useRef(null); // while it is dragged: pixels between the pointer and the edge, and the time at which it began
  const handle = useRef(null);
  const duration = player.state.value.duration || Infinity;
  const within = (to) => Math.round(1000 * Math.max(low, Math.min(to, high, duration))) / 1000;
  const aim = (event) => within(seconds(event.clientX - handle.current.parentElement.getBoundingClientRect().left - held.current.pixels));
  const down = (event) => {
    event.preventDefault();
    handle.current.focus();
    handle.current.setPointerCapture(event.pointerId);
    held.current = { pixels: event.clientX - handle.current.parentElement.getBoundingClientRect().left - at, began: time };
    onDrag(time);
  };
  const move = (event) => held.current !== null && onDrag(aim(event));
  const up = (event) => {
    if (held.current === null) return undefined;
    const to = aim(event);
    if (to === held.current.began) return cancel();
    held.current = null;
    return onSet(to, null);
  };
  const cancel = () => {
    held.current = null;
    onDrag(null);
  };
  const key = (event) => {
    const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (event.key === "Escape" && held.current !== null) cancel();
    if (direction === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    onSet(within(time + direction * (event.shiftKey ? LONG_STEP : STEP)), `edge ${name}`);
  };
  const label = name === "start" ? "Start of the segment" : "End of the segment";
  return html`<div class=${`edge ${name}`} ref=${handle} role="slider" tabindex="0" aria-label=${label} title=${label} aria-valuemin=${low}
    aria-valuemax=${Number.isFinite(Math.min(high, duration)) ? Math.min(high, duration) : time} aria-valuenow=${time} aria-valuetext=${clock(time, true)} style=${{ left: `${at}px` }}
    onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${cancel} onKeyDown=${key} onFocus=${onFocus} onBlur=${onLeave}></div>`;
}
