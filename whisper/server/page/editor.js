// One transcript while it is read and mended: its state, undo, and saving that survives lost connections and other tabs.
import { ApiError, get, patch, post } from "./api.js";
import { Store } from "./ui.js";
import { force, rebase, retext, splices, wordsOf } from "./document.js";

const SAVE_AFTER = 900; // milliseconds without a change
const KEEP_AFTER = 150;
const ALIGN_AFTER = 1500;
const MOST_STEPS = 500;
const LONGEST_WAIT = 30_000;
const LONGEST_ALIGNED = 300; // seconds

/**
 * `state` holds {segments, speakers, findings, language, speech, saving, canUndo, canRedo, conflict}.
 * `saving` is "saved", "unsaved", "saving" or "offline". What is not saved lies in this browser's storage until it is.
 */
export class Editor {
  #base; // what the server has: {version, segments, speakers, findings}
  #undo = [];
  #redo = [];
  #step = null; // of typing that is one step of undo
  #sending = null; // a request whose outcome is not known
  #timer = 0;
  #alignTimer = 0;
  #draftTimer = 0;
  #toAlign = new Set();
  #wait = 1000;
  #channel = new BroadcastChannel("sotto.transcripts");
  #isClosed = false;

  constructor(id, version, document) {
    this.id = id;
    const { segments, speakers, findings, language, speech } = document;
    this.#base = { version, segments, speakers, findings };
    this.state = new Store({ segments, speakers, findings, language, speech, saving: "saved", canUndo: false, canRedo: false, conflict: null });
    this.#channel.onmessage = (event) => event.data.id === id && event.data.version > this.#base.version && this.#othersSaved();
    this.#onOnline = () => this.#save();
    addEventListener("online", this.#onOnline);
    this.#restoreDraft();
  }

  #onOnline;

  close() {
    this.#isClosed = true;
    clearTimeout(this.#alignTimer);
    removeEventListener("online", this.#onOnline);
    this.keep();
    if (this.isDirty) this.#save();
    setTimeout(() => this.#channel.close(), 2000);
  }

  /** Put what is not saved into this browser's storage now. */
  keep() {
    if (this.#draftTimer) this.#keepDraft();
  }

  get isDirty() {
    const { segments, speakers, findings } = this.state.value;
    return segments !== this.#base.segments || speakers !== this.#base.speakers || findings !== this.#base.findings;
  }

  /** Whether anything differs from what was heard, or did once. */
  get isChanged() {
    return this.#base.version > 1 || this.isDirty;
  }

  // -- changes -------------------------------------------------------------------------------------------

  /** Change some of segments, speakers and findings; changes with the same `step` are undone together. */
  change(fields, step = null) {
    const { segments, speakers, findings } = this.state.value;
    if (Object.entries(fields).every(([name, value]) => this.state.value[name] === value)) return;
    if (step === null || step !== this.#step) {
      this.#undo.push({ segments, speakers, findings });
      if (this.#undo.length > MOST_STEPS) this.#undo.shift();
    }
    this.#step = step;
    this.#redo = [];
    this.#set(fields);
  }

  /** Put other segments in the place of some that lie beside each other. */
  swap(index, count, inserted, step = null) {
    const { segments } = this.state.value;
    this.change({ segments: [...segments.slice(0, index), ...inserted, ...segments.slice(index + count)] }, step);
  }

  /** Give a segment another text; its words are aligned again after a while. */
  type(uid, text) {
    const index = this.state.value.segments.findIndex((segment) => segment.uid === uid);
    if (index < 0) return;
    const segment = retext(this.state.value.segments[index], text);
    if (segment === this.state.value.segments[index]) return;
    this.swap(index, 1, [segment], uid);
    this.alignLater([uid]);
  }

  /** Whatever is typed from now on is another step of undo. */
  endStep() {
    this.#step = null;
  }

  undo() {
    this.#go(this.#undo, this.#redo);
  }

  redo() {
    this.#go(this.#redo, this.#undo);
  }

  #go(from, to) {
    const step = from.pop();
    if (!step) return;
    const { segments, speakers, findings } = this.state.value;
    to.push({ segments, speakers, findings });
    this.#step = null;
    this.#set(step);
  }

  #set(fields) {
    this.state.set({ ...fields, canUndo: this.#undo.length > 0, canRedo: this.#redo.length > 0, saving: "unsaved" });
    this.#keepDraftSoon();
    this.#later(SAVE_AFTER);
  }

  // -- saving --------------------------------------------------------------------------------------------

  #later(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#save(), milliseconds);
  }

  #difference() {
    const { segments, speakers, findings } = this.state.value;
    const changed = { splices: splices(this.#base.segments, segments) };
    if (speakers !== this.#base.speakers) changed.speakers = speakers;
    if (findings !== this.#base.findings) changed.findings = findings;
    return changed;
  }

  async #save() {
    clearTimeout(this.#timer);
    if (this.#sending?.isUnderWay || this.state.value.conflict) return;
    if (!this.#sending) {
      if (!this.isDirty) return;
      const { segments, speakers, findings } = this.state.value;
      const { splices: found, ...others } = this.#difference();
      const sent = found.map(({ after, remove, insert }) => ({ after, remove: remove.map((one) => one.uid), insert }));
      const body = { version: this.#base.version, change_id: crypto.getRandomValues(new Uint32Array(4)).join("-"), splices: sent, ...others };
      this.#sending = { body, after: { segments, speakers, findings } };
    }
    const sending = this.#sending; // the same again after a lost answer: the server knows it by its change_id
    sending.isUnderWay = true;
    this.state.set({ saving: "saving" });
    try {
      const { version } = await patch(`/v1/library/${this.id}`, sending.body);
      this.#sending = null;
      this.#base = { version, ...sending.after };
      this.#wait = 1000;
      if (!this.#isClosed) this.#channel.postMessage({ id: this.id, version });
      this.#saved();
    } catch (error) {
      sending.isUnderWay = false;
      await this.#failed(error);
    }
  }

  #saved() {
    this.#keepDraft();
    this.state.set({ saving: this.isDirty ? "unsaved" : "saved" });
    if (this.isDirty) this.#later(SAVE_AFTER);
  }

  async #failed(error) {
    if (error instanceof ApiError && error.status < 500 && ![401, 408, 429].includes(error.status)) {
      this.#sending = null;
      if (error.status === 409) return this.#catchUp();
      this.state.set({ saving: "offline", problem: error.message });
      return undefined;
    }
    this.state.set({ saving: "offline", problem: error.message });
    this.#later(this.#wait);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
    return undefined;
  }

  /** Take a newer version of the server, and make our changes to it. */
  async #catchUp() {
    let newer;
    try {
      newer = await get(`/v1/library/${this.id}`);
    } catch {
      this.state.set({ saving: "offline" });
      this.#later(this.#wait);
      return;
    }
    this.#takeOver(newer, this.#difference());
  }

  #takeOver(newer, mine) {
    const { segments, speakers, findings } = newer.document;
    this.#base = { version: newer.version, segments, speakers, findings };
    this.#undo = [];
    this.#redo = [];
    const rebased = rebase(segments, mine.splices);
    const others = { speakers: mine.speakers || speakers, findings: mine.findings || findings };
    if (rebased) {
      this.state.set({ segments: rebased, ...others, canUndo: false, canRedo: false });
      this.#saved();
    } else {
      this.state.set({ conflict: { theirs: segments, mine, others } });
    }
  }

  /** End a conflict: keep what was changed here, or what was changed elsewhere. */
  resolve(keepsMine) {
    const { theirs, mine, others } = this.state.value.conflict;
    const segments = keepsMine ? force(theirs, mine.splices) : theirs;
    const { speakers, findings } = this.#base;
    this.state.set({ conflict: null, segments, ...(keepsMine ? others : { speakers, findings }) });
    this.#saved();
  }

  async #othersSaved() {
    if (this.isDirty || this.#sending) return; // our own saving will find out
    const newer = await get(`/v1/library/${this.id}`).catch(() => null);
    if (newer && !this.isDirty && newer.version > this.#base.version) this.#takeOver(newer, { splices: [] });
  }

  // -- drafts --------------------------------------------------------------------------------------------

  get #draft() {
    return `sotto.draft.${this.id}`;
  }

  /** Keep what is not saved in this browser: soon, since it is compared with all of the text. */
  #keepDraftSoon() {
    this.#draftTimer ||= setTimeout(() => this.#keepDraft(), KEEP_AFTER);
  }

  #keepDraft() {
    clearTimeout(this.#draftTimer);
    this.#draftTimer = 0;
    try {
      if (!this.isDirty) localStorage.removeItem(this.#draft);
      else localStorage.setItem(this.#draft, JSON.stringify({ version: this.#base.version, ...this.#difference() }));
    } catch {
      this.state.set({ problem: "this browser has no room to keep unsaved changes" });
    }
  }

  #restoreDraft() {
    let draft = null;
    try {
      draft = JSON.parse(localStorage.getItem(this.#draft));
    } catch {
      localStorage.removeItem(this.#draft);
    }
    if (!draft) return;
    const { speakers, findings, segments } = this.state.value;
    this.#takeOver({ version: this.#base.version, document: { segments, speakers, findings } }, draft);
  }

  // -- words on the sound again --------------------------------------------------------------------------

  /** Have the words of segments placed on the sound, once nothing was typed for a while. */
  alignLater(uids) {
    for (const uid of uids) this.#toAlign.add(uid);
    clearTimeout(this.#alignTimer);
    this.#alignTimer = setTimeout(() => this.#align(), ALIGN_AFTER);
  }

  async #align() {
    while (this.#toAlign.size) {
      const [uid] = this.#toAlign;
      this.#toAlign.delete(uid);
      const segment = this.state.value.segments.find((one) => one.uid === uid);
      if (!segment || !segment.text.trim() || segment.end - segment.start > LONGEST_ALIGNED || segment.end <= segment.start) continue;
      const asked = { start: segment.start, end: segment.end, texts: [segment.text], language: segment.language || this.state.value.language };
      try {
        const { segments: [words] } = await post(`/v1/library/${this.id}/align`, asked);
        this.#place(segment, words);
      } catch (error) {
        if (!(error instanceof ApiError)) {
          this.#toAlign.add(uid);
          return; // without a connection: at the next change
        }
      }
    }
  }

  #place(segment, words) {
    const index = this.state.value.segments.indexOf(segment);
    if (index < 0 || this.#isClosed) return; // changed meanwhile: it will be asked for again
    const said = words.map((word) => word.word).join("");
    if (said.split(/\s+/).join(" ").trim() !== segment.text.split(/\s+/).join(" ").trim()) return;
    const known = new Map();
    for (const word of segment.words) known.set(word.word.trim(), word.confidence ?? 1);
    const placed = words.map((word) => ({ ...word, confidence: known.get(word.word.trim()) ?? (wordsOf(word.word).length > 1 ? 1 : word.probability) }));
    const segments = [...this.state.value.segments];
    segments[index] = { ...segment, words: placed };
    this.#step = segment.uid; // belongs to the step that made it needed
    this.#set({ segments });
  }
}
