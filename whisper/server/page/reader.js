// The reading view: one recording, its sound, its text, and what can be done with them.
import { follow, get, post } from "./api.js";
import { Conflict, Export, Help, Speakers, Times } from "./dialogs.js";
import { KINDS, doubts } from "./doubts.js";
import { Editor } from "./editor.js";
import { FindBar, useFind } from "./find.js";
import { useKeys } from "./keys.js";
import { RestoreAll } from "./original.js";
import { Controls, Player } from "./player.js";
import { useSync } from "./sync.js";
import { Growing, Transcript } from "./transcript.js";
import { View, Waveform } from "./waveform.js";
import { Icon, html, tell, useCallback, useEffect, useMemo, useRef, useState, useStore } from "./ui.js";
import { length, roughly } from "./time.js";

const SHOWS_DOUBT = "sotto.doubts";

export function Reader({ id, time }) {
  const [recording, setRecording] = useState(null);
  const [problem, setProblem] = useState(null);
  const load = useCallback(() => get(`/v1/library/${id}`).then(setRecording, (error) => setProblem(error.message)), [id]);
  useEffect(() => void load(), [load]);
  useEffect(() => {
    if (recording) document.title = `${recording.name} – Sotto`;
  }, [recording]);
  if (problem) return html`<main class="reader"><p class="bad">${problem}</p><p><a href="#/">Back to the library</a></p></main>`;
  if (!recording) return html`<main class="reader"><p class="quiet">Loading …</p></main>`;
  if (recording.document) return html`<${Open} recording=${recording} time=${time} />`;
  return html`<${Waiting} recording=${recording} load=${load} />`;
}

/** A recording that is being transcribed: its text grows. */
function Waiting({ recording, load }) {
  const [segments, setSegments] = useState([]);
  const [progress, setProgress] = useState(null);
  const [player] = useState(() => new Player(recording.id));
  const began = useRef(null);
  useEffect(() => () => player.close(), []);
  useEffect(() => {
    if (recording.status !== "working") return undefined;
    const abort = new AbortController();
    const heard = (event) => {
      if (event.type === "job.queued") setSegments([]);
      else if (event.type === "job.segment") setSegments((before) => [...before, event.segment]);
      else if (event.type === "job.progress") setProgress({ ...event, left: timeLeft(began, event) });
    };
    follow(`/v1/library/${recording.id}/events`, heard, abort.signal).then(() => abort.signal.aborted || load());
    return () => abort.abort();
  }, [recording.id, recording.status]);
  const retry = () => post(`/v1/library/${recording.id}/retry`).then(load, (error) => tell(error.message));
  return html`<main class="reader">
    <${Title} recording=${recording} />
    ${recording.status === "working" ? html`<div class="waiting" role="status">
        <p class="quiet">${progress ? `${length(progress.seconds)} of ${length(progress.total)}${progress.left}` : "Listening …"}</p>
        <div class="bar"><div style=${{ width: `${progress ? (100 * progress.seconds) / Math.max(progress.total, 0.01) : 0}%` }}></div></div></div>`
      : html`<p class="bad">${recording.error ? recording.error.message : "Cancelled"}</p><p><button type="button" onClick=${retry}>Try again</button></p>`}
    <${Growing} segments=${segments} onHear=${(at) => player.seek(at, { plays: true })} />
  </main>`;
}

function timeLeft(began, { seconds, total }) {
  const now = performance.now() / 1000;
  if (!began.current) began.current = { now, seconds };
  const done = seconds - began.current.seconds;
  return done > 0 ? ` – ${roughly(((now - began.current.now) * (total - seconds)) / done)} left` : "";
}

function Title({ recording }) {
  return html`<div class="title"><a class="back" href="#/" aria-label="Back to the library"><${Icon} name="back" /></a><h2>${recording.name}</h2></div>`;
}

const SAVING = { saved: "Saved", unsaved: "Saving …", saving: "Saving …", offline: "Not on the server yet; kept in this browser" };

/** Lanes under the waveform: speech or speakers, doubt, hits. */
function lanesOf({ segments, speakers, speech }, places, hits) {
  const keys = Object.keys(speakers);
  const spoken = keys.length ? turns(segments, keys)
    : (speech || segments.map((one) => [one.start, one.end])).map(([start, end]) => ({ start, end, kind: "speech" }));
  const doubtful = places.map(({ start, end }) => ({ start, end, kind: "doubt" }));
  return [spoken, doubtful, ...(hits.length ? [hits.map(({ start }) => ({ start, end: start, kind: "hit" }))] : [])];
}

/** Who speaks when; segments of one speaker that follow each other are one turn. */
function turns(segments, keys) {
  const found = [];
  for (const { start, end, speaker } of segments) {
    if (speaker === undefined) continue;
    const kind = keys.indexOf(speaker);
    const last = found[found.length - 1];
    if (last && last.kind === kind && start - last.end < 1.5) last.end = end;
    else found.push({ start, end, kind });
  }
  return found;
}

function Open({ recording, time }) {
  const { id } = recording;
  const [editor] = useState(() => new Editor(id, recording.version, recording.document));
  const [player] = useState(() => new Player(id));
  const [view] = useState(() => new View());
  const state = useStore(editor.state);
  const played = useStore(player.state);
  const [dialog, setDialog] = useState(null); // {name, segment?}
  const [editing, setEditing] = useState(null);
  const [chosen, setChosen] = useState(null);
  const [finds, setFinds] = useState(false);
  const [query, setQuery] = useState("");
  const [how, setHow] = useState({ matchCase: false, wholeWords: false });
  const [showsDoubt, setShowsDoubt] = useState(localStorage.getItem(SHOWS_DOUBT) !== "false");
  const elements = useRef(new Map());
  const head = useRef(null);
  const clockRef = useRef(null);
  const find = useFind(state.segments, finds ? query : "", how);
  const places = useMemo(() => doubts(state.segments, state.findings), [state.segments, state.findings]);
  const duration = recording.duration || played.duration || 0;
  view.duration = duration;
  const lanes = useMemo(() => lanesOf(state, places, find.all), [state.segments, state.speakers, places, find.all]);

  useEffect(() => {
    if (time) setTimeout(() => show(time), 100);
    const leave = () => editor.keep(); // what is not on the server is in this browser, so nobody is asked
    addEventListener("pagehide", leave);
    return () => {
      removeEventListener("pagehide", leave);
      editor.close();
      player.close();
    };
  }, []);

  const follows = useSync({ player, editor, elements, head, clockRef, view, isEditing: editing !== null });
  /** Go to a time, and bring its text into view. */
  const show = (at, uid) => {
    player.seek(at);
    const { segments } = editor.state.value;
    const segment = segments.find((one) => one.uid === uid) || [...segments].reverse().find((one) => one.start <= at + 0.01) || segments[0];
    if (!segment) return;
    setChosen(segment.uid);
    follows.scrollTo(segment.uid);
  };
  const jump = (step) => {
    const now = player.time;
    const next = step > 0 ? places.find((one) => one.start > now + 0.05) || places[0]
      : [...places].reverse().find((one) => one.start < now - 0.05) || places[places.length - 1];
    if (!next) return tell("Nothing doubtful is left");
    if (next.finding !== undefined) tell(KINDS[state.findings[next.finding].kind]);
    show(next.start, next.uid);
    return undefined;
  };
  /** Mark the chosen segment as right, and go to the next one. */
  const check = () => {
    const { segments } = editor.state.value;
    const index = segments.findIndex((one) => one.uid === chosen);
    if (index < 0) return tell("Nothing doubtful is here");
    editor.endStep();
    if (!segments[index].checked) editor.swap(index, 1, [{ ...segments[index], checked: true }]);
    const next = segments[index + 1];
    return next && show(next.start, next.uid);
  };
  const accept = () => {
    const now = player.time + 0.01;
    const place = places.find((one) => one.start <= now && now <= one.end + 0.5) || places.find((one) => one.uid === chosen);
    if (!place) return check();
    const fields = {};
    if (place.finding !== undefined) fields.findings = state.findings.map((one, i) => (i === place.finding ? { ...one, state: "accepted" } : one));
    else fields.segments = state.segments.map((one) => (one.uid === place.uid ? { ...one, checked: true } : one));
    editor.endStep();
    editor.change(fields);
    return jump(1);
  };
  /** Edit a segment from a place in its text on; without a uid, end the editing of one, where it was not another's turn. */
  const edit = (uid, at) => {
    setEditing((before) => (uid !== null ? { uid, at, round: (before ? before.round : 0) + 1 } : before && before.uid === at ? null : before));
    if (uid !== null) setChosen(uid);
  };
  const openFind = () => setFinds(true);
  /** Show less or more of the waveform, around the chosen segment where there is one. */
  const zoom = (factor) => {
    const segment = editor.state.value.segments.find((one) => one.uid === chosen);
    view.zoom(factor, segment ? (segment.start + segment.end) / 2 : player.time);
  };
  useKeys({ zoom, player, editor, chosen, setChosen, jump, accept, edit, openFind, setDialog, follows });
  const toggleDoubt = () => {
    localStorage.setItem(SHOWS_DOUBT, !showsDoubt);
    setShowsDoubt(!showsDoubt);
  };
  const button = (icon, label, act, disabled = false) => html`<button type="button" class="quiet" aria-label=${label} title=${label}
    disabled=${disabled} onClick=${act}><${Icon} name=${icon} /></button>`;
  const close = () => setDialog(null);
  return html`<main class="reader">
    <${Title} recording=${recording} />
    <div class="deck">
      <${Waveform} id=${id} duration=${duration} lanes=${lanes} player=${player} headRef=${head} view=${view} editor=${editor} chosen=${chosen} />
      <div class="tools">
        <${Controls} player=${player} duration=${duration} clockRef=${clockRef} />
        <span class="spread"></span>
        <button type="button" class="doubt-next" onClick=${() => jump(1)} disabled=${!places.length} title="Next doubtful place (D)"><${Icon} name="doubt" />
          ${places.length ? html`${places.length} <span class="word">doubtful</span>` : html`<span class="word">No doubt left</span>`}</button>
        <button type="button" class="quiet accept" onClick=${accept} aria-label="This is right" title="This is right (A)"><${Icon} name="check" /></button>
        ${button("in", "Show less of the waveform (+)", () => zoom(0.5))} ${button("out", "Show more of the waveform (−)", () => zoom(2))}
        ${button("undo", "Undo", () => editor.undo(), !state.canUndo)} ${button("redo", "Redo", () => editor.redo(), !state.canRedo)}
        ${button("find", "Find and replace", openFind)} ${button("save", "Save and share", () => setDialog({ name: "export" }))}
        <button type="button" class="quiet" aria-label="Keys" title="Keys (?)" onClick=${() => setDialog({ name: "help" })}>?</button>
      </div>
      ${finds && html`<${FindBar} find=${find} query=${query} setQuery=${setQuery} how=${how} setHow=${setHow} editor=${editor}
        onShow=${(hit) => show(hit.start, hit.uid)} onClose=${() => setFinds(false)} />`}
    </div>
    <div class="legend">
      <label class="check"><input type="checkbox" checked=${showsDoubt} onChange=${toggleDoubt} /> <span>Mark doubt</span></label>
      ${showsDoubt && html`<span><span class="low">likely wrong</span></span><span><span class="middle">perhaps wrong</span></span>`}
      <span class="spread"></span>
      ${editor.isChanged && html`<button type="button" class="link" onClick=${() => setDialog({ name: "restore" })}>Restore what was heard</button>`}
      <span class=${`saving ${state.saving}`} role="status" title=${state.problem}>${SAVING[state.saving]}</span>
    </div>
    ${state.segments.length ? html`<${Transcript} state=${state} editor=${editor} elements=${elements.current} hits=${find.byUid} chosen=${chosen} editing=${editing}
      onEdit=${edit} onHear=${(at) => player.seek(at, { plays: true })} onPause=${() => player.audio.pause()} onTime=${(segment) => setDialog({ name: "times", segment })}
      onSpeaker=${(segment) => setDialog({ name: "speakers", segment })} onChoose=${setChosen} showsDoubt=${showsDoubt} />`
      : html`<p class="quiet">No speech was found in this recording.</p>`}
    ${dialog && dialog.name === "export" && html`<${Export} id=${id} editor=${editor} speakers=${state.speakers} onClose=${close} />`}
    ${dialog && dialog.name === "times" && html`<${Times} segment=${dialog.segment} editor=${editor} player=${player} onClose=${close} />`}
    ${dialog && dialog.name === "speakers" && html`<${Speakers} segment=${dialog.segment} state=${state} editor=${editor} onClose=${close} />`}
    ${dialog && dialog.name === "restore" && html`<${RestoreAll} editor=${editor} onClose=${close} />`}
    ${dialog && dialog.name === "help" && html`<${Help} onClose=${close} />`}
    ${state.conflict && html`<${Conflict} editor=${editor} />`}
  </main>`;
}
