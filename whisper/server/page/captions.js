// Live captions: the sound of the microphone goes to the server's websocket, and text comes back while somebody speaks.
import { protocols } from "./api.js";
import { Store } from "./ui.js";

const KEPT_S = 15; // seconds of sound that wait for a connection: the newest
const FURTHEST_S = 60; // seconds that may wait to be sent before the captions give up
const FIRST_WAIT = 1000; // milliseconds until the next attempt to connect; doubled each time
const LONGEST_WAIT = 15_000;
const MOST_ITEMS = 300;
const TEXT = "conversation.item.input_audio_transcription.";

export const captions = new Store({ items: [], message: "" }); // items: {id, stable, interim}

export class Captions {
  /** `rate`: samples a second; `asked`: the fields of the form that asks for a transcription. */
  constructor(rate, asked) {
    this.rate = rate;
    this.asked = asked;
    this.waiting = []; // blocks for which there is no connection yet
    this.isReady = this.isOver = false;
    this.wait = FIRST_WAIT;
    captions.set({ items: [], message: "" });
    this.connect();
  }

  /** Send a block of samples. */
  push(samples) {
    if (this.isOver) return;
    if (!this.isReady) {
      this.waiting.push(samples);
      if (this.waiting.length * samples.length > KEPT_S * this.rate) this.waiting.shift();
    } else if (this.socket.bufferedAmount > FURTHEST_S * this.rate * 2) {
      this.end("The live captions have ended: the server does not keep up with them. The recording goes on.");
    } else {
      this.socket.send(samples);
    }
  }

  /** No more captions. */
  end(message = "") {
    this.isOver = true;
    clearTimeout(this.timer);
    this.socket?.close();
    captions.set({ message });
  }

  connect() {
    const { model } = this.asked;
    const address = new URL(`/v1/realtime?${new URLSearchParams({ intent: "transcription", model })}`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    try {
      this.socket = new WebSocket(address, protocols());
    } catch (error) { // the key has signs that no subprotocol has
      this.end(`There are no live captions: ${error.message} The recording goes on.`);
      return;
    }
    this.reason = "";
    this.socket.onmessage = (message) => this.isOver || this.take(JSON.parse(message.data));
    this.socket.onclose = () => this.isOver || this.lost();
  }

  lost() {
    const isNew = this.isReady;
    this.isReady = false;
    if (this.isRefused) {
      this.end(`There are no live captions: ${this.reason} The recording goes on.`);
      return;
    }
    if (this.expired) this.wait = 0; // the longest duration of a session: the next one begins at once
    else captions.set({ message: `${this.reason || "The connection to the server is lost."} The captions wait for it. The recording goes on, and nothing is lost.` });
    if (isNew) captions.set({ items: captions.value.items.map((item) => ({ ...item, interim: "" })) });
    this.timer = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(Math.max(this.wait, FIRST_WAIT / 2) * 2, LONGEST_WAIT);
    this.expired = false;
  }

  /** Take what the server tells. */
  take(event) {
    if (event.type === "session.created") this.begin();
    else if (event.type === "session.updated") this.wait = FIRST_WAIT;
    else if (event.type === "error") this.fault(event.error);
    else if (event.type === `${TEXT}interim`) this.change(event.item_id, () => ({ interim: event.interim }));
    else if (event.type === `${TEXT}delta`) this.change(event.item_id, (item) => ({ stable: item.stable + event.delta, interim: "" }));
    else if (event.type === `${TEXT}completed`) this.change(event.item_id, () => ({ stable: event.transcript, interim: "" }));
    else if (event.type === `${TEXT}failed`) this.change(event.item_id, () => ({ interim: "" }));
  }

  begin() {
    const { model, language, hotwords, task } = this.asked;
    const transcription = { model, interim: true, language: language || null, keywords: hotwords || null, task: task || null };
    const input = { format: { type: "audio/pcm", rate: this.rate }, transcription, turn_detection: { type: "server_vad" } };
    this.socket.send(JSON.stringify({ type: "session.update", event_id: "begin", session: { type: "transcription", audio: { input } } }));
    for (const samples of this.waiting) this.socket.send(samples);
    this.waiting = [];
    this.isReady = true;
    captions.set({ message: "" });
  }

  fault(error) {
    this.reason = `${error.message.replace(/\.?$/, ".")}`;
    this.expired = error.code === "session_expired";
    // what is wrong with the question stays wrong; a full or leaving server may take it later
    this.isRefused = error.event_id === "begin" || (!this.isReady && error.type === "invalid_request_error");
    if (this.isRefused) this.lost();
  }

  change(id, fields) {
    const { items } = captions.value;
    const known = items.find((item) => item.id === id);
    const item = known || { id, stable: "", interim: "" };
    const changed = { ...item, ...fields(item) };
    const all = known ? items.map((one) => (one.id === id ? changed : one)) : [...items, changed];
    captions.set({ items: all.slice(-MOST_ITEMS) });
  }
}
