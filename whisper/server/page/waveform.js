// The waveform of a recording or a part of it, with speech, speakers, doubt and hits under it. A slider for the keyboard.
import { send } from "./api.js";
import { Edges } from "./edges.js";
import { Store, html, useEffect, useRef, useState, useStore } from "./ui.js";
import { clock } from "./time.js";

const HEIGHT = 64; // of the waveform, in pixels
const LANE = 5; // height of a lane under it
const GAP = 3;
export const N_COLOURS = 8;

const SHORTEST_SPAN = 4; // seconds that are shown at least
const LEFT_ALONE = 4000; // milliseconds after somebody has moved the part that is shown

/** The part of a recording that the waveform shows; its state is {start, span}, a span of 0 being all of it. */
export class View {
  state = new Store({ start: 0, span: 0 });
  duration = 0;
  #moved = 0;

  get start() {
    return this.state.value.start;
  }

  get span() {
    return Math.min(this.state.value.span || this.duration, this.duration);
  }

  get isWhole() {
    return this.span >= this.duration;
  }

  /** Where a time lies: 0 at the left edge, 1 at the right one. */
  place(time) {
    return this.span ? (time - this.start) / this.span : 0;
  }

  /** Show from a time on; by hand, it stays there for a while. */
  move(start, span = this.span) {
    this.#moved = Date.now();
    this.#set(start, span);
  }

  /** Show more or less, around a time that stays where it is, or comes into the middle. */
  zoom(factor, around, isCentred = true) {
    const span = Math.min(Math.max(this.span * factor, SHORTEST_SPAN), this.duration);
    this.move(isCentred ? around - span / 2 : around - (around - this.start) * (span / this.span), span);
  }

  /** Bring a time into view, unless somebody has just moved it out. */
  follow(time) {
    const at = this.place(time);
    if (this.isWhole || (at >= 0 && at <= 1) || Date.now() - this.#moved < LEFT_ALONE) return;
    this.#set(time - this.span / 10, this.span);
  }

  #set(start, span) {
    const isWhole = span >= this.duration;
    this.state.set({ span: isWhole ? 0 : span, start: isWhole ? 0 : Math.min(Math.max(start, 0), this.duration - span) });
  }
}

async function peaks(id, start, end, n) {
  const query = new URLSearchParams({ start, end, n });
  return new Int8Array(await (await send(`/v1/library/${id}/peaks?${query}`)).arrayBuffer());
}

/** The colours of the style sheet as a canvas takes them, light or dark. */
function colours(canvas) {
  const of = (name) => {
    canvas.style.color = `var(--${name})`;
    return getComputedStyle(canvas).color;
  };
  return { wave: of("wave"), speech: of("speech"), doubt: of("doubt"), hit: of("hit"), speakers: Array.from({ length: N_COLOURS }, (_, i) => of(`speaker-${i}`)) };
}

function draw(canvas, data, { start: from, end: to }, lanes) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = HEIGHT + lanes.length * (LANE + GAP);
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const colour = colours(canvas);
  context.fillStyle = colour.wave;
  const n = data.length / 2;
  let loudest = 24;
  for (const value of data) loudest = Math.max(loudest, Math.abs(value));
  const scale = HEIGHT / 2 / loudest;
  for (let i = 0; i < n; i++) {
    const top = HEIGHT / 2 - data[2 * i + 1] * scale;
    const bottom = HEIGHT / 2 - data[2 * i] * scale;
    context.fillRect((i * width) / n, top, Math.max(width / n - 0.6, 0.6), Math.max(bottom - top, 1));
  }
  lanes.forEach((lane, row) => {
    const y = HEIGHT + GAP + row * (LANE + GAP);
    for (const { start, end, kind } of lane) {
      if (end < from || start > to) continue;
      context.fillStyle = typeof kind === "number" ? colour.speakers[kind % N_COLOURS] : colour[kind];
      context.fillRect(((start - from) / (to - from)) * width, y, Math.max(((end - start) / (to - from)) * width, 2), LANE);
    }
  });
}

/** `lanes` are lists of {start, end, kind}: "speech", "doubt", "hit", or the number of a speaker. */
export function Waveform({ id, duration, lanes, player, headRef, view, editor, chosen }) {
  const box = useRef(null);
  const canvas = useRef(null);
  const [width, setWidth] = useState(0);
  const [data, setData] = useState(null); // {start, end, values}
  const { start, span } = useStore(view.state);
  const end = span ? start + span : duration;
  useEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    watcher.observe(box.current);
    return () => watcher.disconnect();
  }, []);
  const n = Math.max(Math.floor(width / 3), 0);
  useEffect(() => {
    if (!duration || !n) return undefined;
    let isWanted = true;
    peaks(id, start, end, n).then((values) => isWanted && setData({ start, end, values }), () => null);
    return () => { isWanted = false; };
  }, [id, start, end, n]);
  useEffect(() => {
    if (!data || !width) return undefined;
    const paint = () => canvas.current && draw(canvas.current, data.values, data, lanes); // not while the view is being left
    const soon = setTimeout(paint, 60); // typing changes the lanes often
    const watcher = new MutationObserver(paint);
    watcher.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", paint);
    return () => {
      clearTimeout(soon);
      watcher.disconnect();
      dark.removeEventListener("change", paint);
    };
  }, [data, width, lanes]);
  useEffect(() => {
    if (headRef.current && width) headRef.current.style.transform = `translateX(${headPlace(view, player.time, width)}px)`;
  }, [start, span, width]);
  const shareOf = (event) => {
    const rect = box.current.getBoundingClientRect();
    return Math.max(0, Math.min(event.clientX - rect.left, rect.width)) / rect.width;
  };
  const drag = (event) => {
    if (event.type === "pointerdown") box.current.setPointerCapture(event.pointerId);
    if (event.buttons & 1) player.seek(view.start + shareOf(event) * view.span);
  };
  const key = (event) => {
    const to = { Home: 0, End: duration, PageUp: player.time - 60, PageDown: player.time + 60 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    player.seek(to);
  };
  useEffect(() => {
    const wheel = (event) => {
      const isZoom = event.ctrlKey || event.metaKey;
      const along = event.shiftKey ? event.deltaY : event.deltaX;
      if (!isZoom && (view.isWhole || !along)) return;
      event.preventDefault();
      if (isZoom) view.zoom(2 ** (event.deltaY / 200), view.start + shareOf(event) * view.span, false);
      else view.move(view.start + (along / 1000) * view.span);
    };
    box.current.addEventListener("wheel", wheel, { passive: false });
    return () => box.current?.removeEventListener("wheel", wheel);
  }, []);
  return html`<div class="strip"><div class="wave" ref=${box} role="slider" tabindex="0" aria-label="Place in the recording" aria-valuemin="0"
      aria-valuemax=${Math.round(duration)} aria-valuenow="0" aria-valuetext=${clock(0)} onPointerDown=${drag} onPointerMove=${drag} onKeyDown=${key}>
    <canvas ref=${canvas} aria-hidden="true"></canvas><div class="head" ref=${headRef}></div></div>
    <${Edges} view=${view} editor=${editor} uid=${chosen} width=${width} player=${player} />
    ${span > 0 && html`<${Part} view=${view} />`}</div>`;
}

/** Where the line of the present is drawn, in pixels; outside of what is shown, beyond its edge. */
export function headPlace(view, time, width) {
  return (Math.max(-0.1, Math.min(view.place(time), 1.1)) * width).toFixed(1);
}

/** Which part is shown; it can be dragged. */
function Part({ view }) {
  const bar = useRef(null);
  const drag = (event) => {
    if (event.type === "pointerdown") bar.current.setPointerCapture(event.pointerId);
    if (!(event.buttons & 1)) return;
    const rect = bar.current.getBoundingClientRect();
    view.move(((event.clientX - rect.left) / rect.width) * view.duration - view.span / 2);
  };
  return html`<div class="part" ref=${bar} onPointerDown=${drag} onPointerMove=${drag} aria-hidden="true">
    <div style=${{ left: `${(100 * view.start) / view.duration}%`, width: `${(100 * view.span) / view.duration}%` }}></div></div>`;
}
