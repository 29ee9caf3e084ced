// The sound: the file of this tab where there is one, else the server's, else the server's copy that every browser plays.
import { post } from "./api.js";
import { localFiles } from "./uploads.js";
import { Icon, Store, html, useStore } from "./ui.js";
import { clock } from "./time.js";

export const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2];
const SPEED = "sotto.speed";

export class Player {
  #sources = [];
  #ticketUntil = 0;
  #object = null;
  #stopAt = null;

  constructor(id) {
    this.id = id;
    this.audio = new Audio();
    this.audio.preload = "auto";
    this.state = new Store({ isPlaying: false, duration: 0, speed: Number(localStorage.getItem(SPEED)) || 1, problem: null });
    const file = localFiles.get(id);
    if (file) {
      this.#object = URL.createObjectURL(file);
      this.#sources.push(this.#object);
    }
    this.#sources.push(`/v1/library/${id}/sound`, `/v1/library/${id}/sound?copy=true`);
    this.audio.onplay = this.audio.onpause = this.audio.onended = () => this.state.set({ isPlaying: !this.audio.paused });
    this.audio.onloadedmetadata = () => {
      this.audio.playbackRate = this.state.value.speed;
      if (Number.isFinite(this.audio.duration)) this.state.set({ duration: this.audio.duration });
    };
    this.audio.onerror = () => this.#next();
    this.#open();
  }

  async #open() {
    const [source] = this.#sources;
    if (!source.startsWith("blob:") && Date.now() > this.#ticketUntil) {
      await post("/v1/library/ticket").catch(() => null);
      this.#ticketUntil = Date.now() + 11 * 3_600_000;
    }
    this.audio.src = source;
  }

  #next() {
    const time = this.audio.currentTime;
    const wasPlaying = this.state.value.isPlaying;
    this.#sources.shift();
    if (!this.#sources.length) return this.state.set({ problem: "The sound cannot be played" });
    return this.#open().then(() => {
      this.audio.currentTime = time;
      if (wasPlaying) this.play();
    });
  }

  close() {
    this.audio.pause();
    this.audio.onerror = null;
    this.audio.removeAttribute("src");
    this.audio.load();
    if (this.#object) URL.revokeObjectURL(this.#object);
  }

  get time() {
    return this.audio.currentTime;
  }

  play() {
    this.audio.play().catch(() => null);
  }

  toggle() {
    this.#stopAt = null;
    if (this.audio.paused) this.play();
    else this.audio.pause();
  }

  /** Go to a time; with `plays`, and perhaps until another, hear it. */
  seek(time, { plays = false, until = null } = {}) {
    this.audio.currentTime = Math.max(0, Math.min(time, this.state.value.duration || time));
    this.#stopAt = until;
    if (plays) this.play();
  }

  /** Stop where only a stretch was to be heard. */
  tick() {
    if (this.#stopAt !== null && this.audio.currentTime >= this.#stopAt) {
      this.#stopAt = null;
      this.audio.pause();
    }
  }

  set speed(value) {
    this.audio.playbackRate = value;
    localStorage.setItem(SPEED, value);
    this.state.set({ speed: value });
  }

  faster(step) {
    const at = SPEEDS.indexOf(this.state.value.speed);
    this.speed = SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, (at < 0 ? 2 : at) + step))];
  }
}

export function Controls({ player, duration, clockRef }) {
  const { isPlaying, speed, problem } = useStore(player.state);
  return html`<div class="controls">
    <button type="button" class="play" aria-label=${isPlaying ? "Pause" : "Play"} title="Space" onClick=${() => player.toggle()}>
      <${Icon} name=${isPlaying ? "pause" : "play"} /></button>
    <span class="clock"><time ref=${clockRef}>0:00</time> / ${clock(duration)}</span>
    <label class="speed"><span class="sr">Speed</span>
      <select value=${String(speed)} onChange=${(event) => { player.speed = Number(event.target.value); }}>
        ${SPEEDS.map((one) => html`<option key=${one} value=${String(one)}>${one}×</option>`)}
      </select></label>
    ${problem && html`<span class="bad">${problem}</span>`}
  </div>`;
}
