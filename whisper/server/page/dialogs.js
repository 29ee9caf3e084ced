// The dialogs of the reading view: give out, times of a segment, speakers, keys, conflict.
import { download } from "./api.js";
import { retime } from "./document.js";
import { restoreSegment } from "./original.js";
import { Dialog, html, tell, useState } from "./ui.js";
import { clock, seconds } from "./time.js";

const FORMATS = [
  ["txt", "Text"], ["docx", "Document, Word"], ["srt", "Subtitles, SRT"], ["vtt", "Subtitles, WebVTT"], ["html", "A page to share, with the sound inside"],
];
const OTHERS = [
  ["csv", "Table, CSV"], ["tsv", "Table, TSV"], ["json", "All of it, JSON"], ["ass", "Subtitles, ASS"], ["ttml", "Subtitles, TTML"], ["ebuttd", "Subtitles, EBU-TT-D"],
  ["sbv", "Captions of YouTube, SBV"], ["lrc", "Lyrics, LRC"], ["podcast", "Podcasting 2.0"], ["audacity", "Labels of Audacity"], ["textgrid", "Praat"], ["eaf", "ELAN"],
  ["fcpxml", "Markers of Final Cut Pro"], ["edl", "Markers of DaVinci Resolve"], ["ctm", "Words with times, CTM"], ["stm", "NIST, STM"], ["rttm", "Who speaks when, RTTM"],
  ["manifest", "Clips and texts to train on", "zip"],
];

/** What is being saved, and a function that saves what an address gives. */
export function useSaving() {
  const [busy, setBusy] = useState("");
  const save = async (path, name, options) => {
    setBusy(name);
    try {
      await download(path, options);
    } catch (error) {
      tell(error.message);
    }
    setBusy("");
  };
  return [busy, save];
}

/** A button for each format; `save` is called with its name. */
export function Formats({ busy, save }) {
  const format = ([name, label, shown = name]) => html`<li key=${name}>
    <button type="button" disabled=${busy !== ""} onClick=${() => save(name)}>
      <span>${label}</span><small>${busy === name ? "…" : shown}</small></button></li>`;
  return html`<ul class="formats">${FORMATS.map(format)}</ul>
    <details><summary>Other formats</summary><ul class="formats">${OTHERS.map(format)}</ul></details>`;
}

export function Export({ id, editor, speakers, onClose }) {
  const [busy, save] = useSaving();
  const copy = async (withTimes) => {
    const lines = editor.state.value.segments.map((one) => {
      const name = one.speaker === undefined ? "" : `${speakers[one.speaker] || one.speaker}: `;
      return (withTimes ? `[${clock(one.start)}] ` : "") + name + one.text.trim();
    });
    try {
      await navigator.clipboard.writeText(lines.join("\n"));
      tell("Copied");
    } catch {
      tell("The browser does not let this page copy; save it as text");
    }
  };
  const give = (name) => (name === "manifest"
    ? save("/v1/library/export", name, { method: "POST", json: { ids: [id], format: name } })
    : save(`/v1/library/${id}/export?format=${name}`, name));
  return html`<${Dialog} title="Save and share" onClose=${onClose}>
    ${editor.isDirty && html`<p class="notice">Your last changes are not on the server yet, and not in these files.</p>`}
    <${Formats} busy=${busy} save=${give} />
    <p class="buttons"><button type="button" onClick=${() => copy(false)}>Copy the text</button>
      <button type="button" onClick=${() => copy(true)}>Copy with times</button>
      <button type="button" onClick=${() => { onClose(); setTimeout(print, 50); }}>Print, or PDF</button></p><//>`;
}

export function Times({ segment, editor, player, onClose }) {
  const [start, setStart] = useState(clock(segment.start, true));
  const [end, setEnd] = useState(clock(segment.end, true));
  const [from, to] = [seconds(start), seconds(end)];
  const isRight = from !== null && to !== null && from <= to;
  const save = (event) => {
    event.preventDefault();
    if (!isRight) return;
    const { segments } = editor.state.value;
    const index = segments.findIndex((one) => one.uid === segment.uid);
    if (index >= 0) {
      editor.endStep();
      editor.swap(index, 1, [retime(segments[index], from, to)]);
      editor.alignLater([segment.uid]);
    }
    onClose();
  };
  const erase = () => {
    const index = editor.state.value.segments.findIndex((one) => one.uid === segment.uid);
    editor.endStep();
    if (index >= 0) editor.swap(index, 1, []);
    onClose();
  };
  const field = (label, value, set) => html`<label>${label}<span class="pair"><input type="text" inputmode="numeric" value=${value} onInput=${(e) => set(e.target.value)}
    aria-invalid=${seconds(value) === null} /><button type="button" onClick=${() => set(clock(player.time, true))}>Now</button></span></label>`;
  return html`<${Dialog} title="Times of this segment" onClose=${onClose}><form onSubmit=${save}>
    <p class="excerpt" dir="auto">${segment.text.trim()}</p>
    <div class="two">${field("Start", start, setStart)}${field("End", end, setEnd)}</div>
    <p class="buttons"><button class="main" disabled=${!isRight}>Set</button>
      <button type="button" disabled=${!isRight} onClick=${() => player.seek(from, { plays: true, until: to })}>Hear it</button>
      <button type="button" onClick=${() => { onClose(); restoreSegment(editor, segment.uid); }}>Restore what was heard</button>
      <button type="button" class="danger" onClick=${erase}>Remove the segment</button></p></form><//>`;
}

export function Speakers({ segment, state, editor, onClose }) {
  const [name, setName] = useState(state.speakers[segment.speaker] || "");
  const [scope, setScope] = useState(segment.speaker === undefined ? "this" : "all");
  const keys = Object.keys(state.speakers);
  const [chosen, setChosen] = useState(segment.speaker ?? "new");
  const save = (event) => {
    event.preventDefault();
    const { segments, speakers } = editor.state.value;
    const key = chosen === "new" ? String(1 + Math.max(-1, ...keys.map(Number).filter(Number.isFinite))) : chosen;
    const named = { ...speakers, [key]: name.trim() || `Speaker ${Number(key) + 1}` };
    const isMeant = (one) => one.uid === segment.uid || (scope === "all" && segment.speaker !== undefined && one.speaker === segment.speaker)
      || (scope === "rest" && one.start >= segment.start);
    const changed = segments.map((one) => (isMeant(one) && one.speaker !== key ? { ...one, speaker: key } : one));
    editor.endStep();
    editor.change({ speakers: named, segments: changed });
    onClose();
  };
  const choose = (event) => {
    setChosen(event.target.value);
    setName(state.speakers[event.target.value] || "");
  };
  return html`<${Dialog} title="Speaker" onClose=${onClose}><form onSubmit=${save}>
    <label>Who speaks<select value=${chosen} onChange=${choose}>
      ${keys.map((key) => html`<option key=${key} value=${key}>${state.speakers[key]}</option>`)}<option value="new">Somebody new</option></select></label>
    <label>Name<input type="text" maxlength="200" value=${name} onInput=${(e) => setName(e.target.value)} /></label>
    <label>Where<select value=${scope} onChange=${(e) => setScope(e.target.value)}>
      <option value="this">In this segment</option><option value="rest">From here to the end</option>
      ${segment.speaker !== undefined && html`<option value="all">Wherever ${state.speakers[segment.speaker]} speaks</option>`}</select></label>
    <p class="buttons"><button class="main">Set</button></p></form><//>`;
}

const KEYS = [
  ["Space", "play, pause"], ["← →", "3 seconds back, forward"], ["Shift ← →", "15 seconds"], ["↑ ↓", "segment before, next"],
  ["< >", "slower, faster"], ["D, Shift D", "next doubtful place, the one before"], ["A", "this is right: what is doubtful here, or the segment"],
  ["Enter", "edit the segment; double-click a word"], ["S", "speaker of the segment"], ["T", "times of the segment"],
  ["R", "restore what was heard of the segment"], ["+ −", "less, more of the waveform"],
  ["Ctrl F or /", "find"], ["Ctrl Z, Ctrl Shift Z", "undo, redo"],
];
const EDIT_KEYS = [
  ["Ctrl Space", "play, pause"], ["Enter", "cut the segment here"], ["Backspace at the beginning", "join it to the one before"], ["Tab, Shift Tab", "next, one before"], ["Esc", "done"],
];

export function Help({ onClose }) {
  const table = (rows) => html`<dl class="keys">${rows.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>`;
  return html`<${Dialog} title="Keys" onClose=${onClose}>${table(KEYS)}<h3>While a text is edited</h3>${table(EDIT_KEYS)}<//>`;
}

export function Conflict({ editor }) {
  return html`<${Dialog} title="Changed in two places" onClose=${() => {}}>
    <p>The passage that you changed was changed elsewhere, too, in another tab or by somebody else.</p>
    <p class="buttons"><button type="button" class="main" onClick=${() => editor.resolve(true)}>Keep my text</button>
      <button type="button" onClick=${() => editor.resolve(false)}>Take the other text</button></p><//>`;
}
