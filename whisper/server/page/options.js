// What a transcription is asked for: model, language, words to listen for, speakers, translation. Remembered.
import { Store, html, useStore } from "./ui.js";

const PLACE = "sotto.options";
const DEFAULTS = { model: "", language: "", words: "", speakers: false, voices: false, translate: false, careful: true };
// The languages that Whisper knows, by its codes; browsers have the names.
const CODES = ("en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te "
  + "fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt "
  + "sa lb my bo tl mg as tt haw ln ha ba jw su yue").split(" ");
const RARE = { ba: "Bashkir", bo: "Tibetan", haw: "Hawaiian", ht: "Haitian Creole", mi: "Maori", nn: "Norwegian Nynorsk", oc: "Occitan", sa: "Sanskrit", tt: "Tatar" };
const NAMES = new Intl.DisplayNames(["en"], { type: "language" });

export function languageName(code) {
  if (!code) return "";
  try {
    const name = NAMES.of(code === "jw" ? "jv" : code);
    return name === code ? RARE[code] || code : name;
  } catch {
    return code;
  }
}

const LANGUAGES = CODES.map((code) => [code, languageName(code)]).sort((a, b) => a[1].localeCompare(b[1]));

export const models = new Store([]);
export const options = new Store({ ...DEFAULTS, ...read() });

function read() {
  try {
    return JSON.parse(localStorage.getItem(PLACE)) || {};
  } catch {
    return {};
  }
}

function choose(fields) {
  options.set(fields);
  localStorage.setItem(PLACE, JSON.stringify(options.value));
}

/** The fields of the form that asks for a transcription with the options as they are now. */
export function formFields() {
  const { model, language, words, speakers, voices, translate, careful } = options.value;
  const known = models.value.includes(model) ? model : models.value[0] || "whisper-1";
  const fields = [["model", known], ["audit", String(careful)]];
  if (language) fields.push(["language", language]);
  if (words.trim()) fields.push(["hotwords", words.trim()]);
  if (speakers) fields.push(["channels", "separate"]);
  if (voices && !speakers) fields.push(["speakers", "true"]);
  if (translate) fields.push(["task", "translate"]);
  return fields;
}

function Check({ name, label, about }) {
  const value = useStore(options)[name];
  return html`<label class="check"><input type="checkbox" checked=${value} onChange=${(e) => choose({ [name]: e.target.checked })} />
    <span>${label}<small>${about}</small></span></label>`;
}

export function Options() {
  const chosen = useStore(options);
  const names = useStore(models);
  return html`<div class="options">
    <label>Language
      <select value=${chosen.language} onChange=${(e) => choose({ language: e.target.value })}>
        <option value="">Find out</option>
        ${LANGUAGES.map(([code, name]) => html`<option key=${code} value=${code}>${name}</option>`)}
      </select></label>
    ${names.length > 1 && html`<label>Model
      <select value=${names.includes(chosen.model) ? chosen.model : names[0]} onChange=${(e) => choose({ model: e.target.value })}>
        ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select></label>`}
    <label class="grow">Words to listen for
      <input type="text" value=${chosen.words} placeholder="Names, terms" onInput=${(e) => choose({ words: e.target.value })} /></label>
    <details><summary>More</summary>
      <div class="checks">
        <${Check} name="voices" label="Tell speakers apart" about="By their voices; click on a name to change it" />
        <${Check} name="speakers" label="A speaker on each channel" about="For interviews and calls that were recorded so" />
        <${Check} name="translate" label="Translate to English" about="Write in English, whatever is spoken" />
        <${Check} name="careful" label="Check the text against the speech" about="Finds inventions and gaps; a little slower" />
      </div></details>
  </div>`;
}
