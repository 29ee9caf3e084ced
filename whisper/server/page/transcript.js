// The text: one row for each segment. Words become elements only near the view, so that hours of speech stay light.
import { html, Component, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./ui.js";
import { join, split } from "./document.js";
import { level } from "./doubts.js";
import { N_COLOURS } from "./waveform.js";
import { clock } from "./time.js";

const NEAR = "900px"; // around the view
const BLOCK = 20; // rows

/** Tells blocks whether they are near the view. */
class Nearness {
  #blocks = new Map();
  #watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) this.#blocks.get(entry.target)?.(entry.isIntersecting);
  }, { rootMargin: NEAR });

  watch(element, tell) {
    this.#blocks.set(element, tell);
    this.#watcher.observe(element);
    return () => {
      this.#blocks.delete(element);
      this.#watcher.unobserve(element);
    };
  }
}

/** The words of a text, each an element; hits of a search are marked. */
function Words({ segment, hits }) {
  if (!segment.words.length) return segment.text.trim();
  let at = 0;
  return segment.words.map((word, i) => {
    at += word.word.length;
    const said = word.word.trimStart();
    const space = i ? word.word.slice(0, word.word.length - said.length) : "";
    const isIn = (hit) => hit.at < at && hit.end > at - said.length;
    const isHit = hits && hits.some(isIn);
    const isCurrent = isHit && hits.some((hit) => hit.isCurrent && isIn(hit));
    const names = [level(word), isHit ? "hit" : "", isCurrent ? "current" : ""].filter(Boolean).join(" ");
    return html`${space}<span class=${names || undefined} data-word=${i}>${said}</span>`;
  });
}

/** A text that is being edited: Enter cuts it, Backspace at its beginning joins it to the one before. */
function Edit({ segment, index, editor, onDone, at }) {
  const field = useRef(null);
  const fit = () => {
    field.current.style.height = "auto";
    field.current.style.height = `${field.current.scrollHeight}px`;
  };
  useLayoutEffect(() => {
    field.current.focus();
    const place = at ?? field.current.value.length;
    field.current.setSelectionRange(place, place);
    fit();
  }, []);
  const lead = segment.text.length - segment.text.trimStart().length;
  const value = segment.text.slice(lead);
  const keys = (event) => {
    const { selectionStart: place, selectionEnd: end } = field.current;
    const { segments } = editor.state.value;
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.preventDefault();
      onDone(null, segment.uid);
    } else if (event.key === "Enter") {
      event.preventDefault();
      editor.endStep();
      const parts = split(segment, place + lead);
      editor.swap(index, 1, parts);
      editor.alignLater(parts.map((part) => part.uid));
      onDone(parts[1].uid, 0);
    } else if (event.key === "Backspace" && place === 0 && end === 0 && index > 0) {
      event.preventDefault();
      editor.endStep();
      const before = segments[index - 1];
      const joined = join(before, segment);
      editor.swap(index - 1, 2, [joined]);
      onDone(joined.uid, before.text.trim().length + 1);
    } else if (event.key === "Delete" && place === value.length && end === place && index + 1 < segments.length) {
      event.preventDefault();
      editor.endStep();
      const joined = join(segment, segments[index + 1]);
      editor.swap(index, 2, [joined]);
      onDone(joined.uid, place);
    } else if (event.key === "Tab") {
      const next = segments[index + (event.shiftKey ? -1 : 1)];
      if (!next) return;
      event.preventDefault();
      editor.endStep();
      onDone(next.uid, 0);
    }
  };
  const input = (event) => {
    fit();
    editor.type(segment.uid, segment.text.slice(0, lead) + event.target.value.replace(/\s*\n\s*/g, " "));
  };
  return html`<textarea ref=${field} rows="1" dir="auto" lang=${segment.language} aria-label=${`Text at ${clock(segment.start)}`} spellcheck
    value=${value} onInput=${input} onKeyDown=${keys} onBlur=${() => { editor.endStep(); onDone(null, segment.uid); }}></textarea>`;
}

class Row extends Component {
  shouldComponentUpdate(next) {
    const same = ["segment", "hits", "editing", "speaker", "isFirst", "isCurrent", "isNear"];
    return same.some((name) => next[name] !== this.props[name]) || (next.editing && next.index !== this.props.index);
  }

  componentDidMount() {
    this.props.elements.set(this.props.segment.uid, this.element);
  }

  componentWillUnmount() {
    if (this.props.elements.get(this.props.segment.uid) === this.element) this.props.elements.delete(this.props.segment.uid);
  }

  render({ segment, index, hits, editing, editor, onEdit, speaker, isFirst, onTime, onSpeaker, isCurrent, isNear }) {
    const colour = speaker ? `speaker-${speaker.number % N_COLOURS}` : "";
    return html`<li ref=${(element) => { this.element = element || this.element; }} data-uid=${segment.uid}
        class=${`segment ${segment.checked ? "checked" : ""} ${isCurrent ? "chosen" : ""} ${isFirst && speaker ? "begins" : ""}`} aria-current=${isCurrent ? "true" : undefined}>
      ${isFirst && speaker && html`<button type="button" class=${`speaker ${colour}`} onClick=${() => onSpeaker(segment)}
        title="Name this speaker">${speaker.name}</button>`}
      <button type="button" class="time" tabindex="-1" title="Times of this segment" onClick=${() => onTime(segment)}>${clock(segment.start)}</button>
      <div class="text">${editing
        ? html`<${Edit} key=${editing.round} segment=${segment} index=${index} editor=${editor} onDone=${onEdit} at=${editing.at} />`
        : html`<p dir="auto" lang=${segment.language}>${isNear ? html`<${Words} segment=${segment} hits=${hits} />` : segment.text.trim() || "…"}</p>`}</div>
    </li>`;
  }
}

/** Some rows, which the browser lays out, and which have words, only near the view. */
class Block extends Component {
  shouldComponentUpdate(next, state) {
    return state.isNear !== this.state.isNear || Object.keys(next).some((name) => next[name] !== this.props[name] && !name.startsWith("on"));
  }

  componentDidMount() {
    this.forget = this.props.nearness.watch(this.element, (isNear) => this.setState({ isNear }));
  }

  componentWillUnmount() {
    this.forget();
  }

  render({ segments, first, before, speakers, hits, chosen, editing, ...shared }, { isNear }) {
    const numbers = new Map(Object.keys(speakers).map((key, i) => [key, i]));
    return html`<li class="block" ref=${(element) => { this.element = element || this.element; }}><ol>${segments.map((segment, i) => {
      const number = numbers.get(segment.speaker);
      const speaker = number === undefined ? null : { number, name: speakers[segment.speaker] };
      return html`<${Row} key=${segment.uid} ...${shared} segment=${segment} index=${first + i} hits=${hits && hits.get(segment.uid)} isNear=${isNear}
        editing=${editing !== null && editing.uid === segment.uid ? editing : null} speaker=${keyed(speaker)} isCurrent=${chosen === segment.uid}
        isFirst=${segment.speaker !== (i ? segments[i - 1].speaker : before)} />`;
    })}</ol></li>`;
  }
}

/** Segments in blocks; a block in which nothing has changed is the same array as before. */
function useBlocks(segments) {
  const last = useRef([]);
  return useMemo(() => {
    const blocks = [];
    for (let i = 0; i < segments.length; i += BLOCK) {
      const some = segments.slice(i, i + BLOCK);
      const old = last.current[blocks.length];
      blocks.push(old && old.length === some.length && old.every((one, j) => one === some[j]) ? old : some);
    }
    last.current = blocks;
    return blocks;
  }, [segments]);
}

/**
 * All rows. `elements` gets the element of each uid; `chosen` is the uid that keys act on; `editing` is {uid, at, round} or null.
 */
export function Transcript({ state, editor, elements, hits, chosen, editing, onEdit, onHear, onPause, onTime, onSpeaker, onChoose, showsDoubt }) {
  const [nearness] = useState(() => new Nearness());
  const blocks = useBlocks(state.segments);
  const click = (event) => {
    const row = event.target.closest("[data-uid]");
    if (!row || event.target.closest("textarea, button") || String(getSelection())) return;
    const segment = state.segments.find((one) => one.uid === row.dataset.uid);
    if (!segment) return;
    onChoose(segment.uid);
    const word = segment.words[event.target.dataset.word];
    onHear(word ? word.start : segment.start);
  };
  const edit = (event) => {
    const row = event.target.closest("[data-uid]");
    if (!row || event.target.closest("textarea, button")) return;
    const segment = state.segments.find((one) => one.uid === row.dataset.uid);
    const number = Number(event.target.dataset.word);
    onPause();
    const at = segment.words.slice(0, number + 1).reduce((sum, word) => sum + word.word.length, 0) - (segment.text.length - segment.text.trimStart().length);
    getSelection().removeAllRanges();
    onEdit(segment.uid, Number.isNaN(number) ? null : Math.max(at, 0));
  };
  return html`<ol class=${`transcript ${showsDoubt ? "doubts" : ""}`} onClick=${click} onDblClick=${edit}>
    ${blocks.map((segments, i) => {
      const holds = (uid) => segments.some((one) => one.uid === uid);
      return html`<${Block} key=${i} segments=${segments} first=${i * BLOCK} before=${i ? blocks[i - 1][BLOCK - 1].speaker : null} nearness=${nearness}
        speakers=${state.speakers} hits=${hits.size ? hits : null} chosen=${holds(chosen) ? chosen : null} editor=${editor} elements=${elements}
        editing=${editing !== null && holds(editing.uid) ? editing : null} onEdit=${onEdit} onTime=${onTime} onSpeaker=${onSpeaker} />`;
    })}</ol>`;
}

const known = new Map(); // the same object for the same speaker, so that rows see that nothing has changed
function keyed(speaker) {
  if (!speaker) return null;
  const key = `${speaker.number} ${speaker.name}`;
  if (!known.has(key)) known.set(key, speaker);
  return known.get(key);
}

/** What is heard while a recording is transcribed: rows that cannot be changed yet. */
export function Growing({ segments, onHear }) {
  const end = useRef(null);
  useEffect(() => {
    const isAtEnd = innerHeight + scrollY > document.body.scrollHeight - 400;
    if (isAtEnd && segments.length > 3) end.current.scrollIntoView({ block: "end" });
  }, [segments.length]);
  return html`<ol class="transcript growing" aria-live="polite" aria-busy="true">${segments.map((segment) => html`
    <li key=${segment.id} class="segment"><button type="button" class="time" onClick=${() => onHear(segment.start)}>${clock(segment.start)}</button>
      <div class="text"><p dir="auto">${segment.text.trim()}</p></div></li>`)}<li ref=${end} class="end" aria-hidden="true"></li></ol>`;
}
