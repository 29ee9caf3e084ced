// Rows of the first view: an upload, or a recording with what happens to it and what can be done with it.
import { Dialog, Icon, html, useState } from "./ui.js";
import { drop, retry } from "./uploads.js";
import { languageName } from "./options.js";
import { length, moment, roughly } from "./time.js";

function Bar({ share, label }) {
  return html`<div class="bar" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(share * 100)}>
    <div style=${{ width: `${share * 100}%` }}></div></div>`;
}

export function UploadRow({ item }) {
  const says = { waiting: "Waits to be sent", sending: `Sending, ${Math.round(item.share * 100)} %`, failed: item.error }[item.state];
  return html`<li class="row">
    <div class="what"><strong>${item.name}</strong><span class=${item.state === "failed" ? "bad" : "quiet"}>${says}</span>
      ${item.state === "sending" && html`<${Bar} share=${item.share} label=${`Sending ${item.name}`} />`}</div>
    <div class="acts">
      ${item.state === "failed" && html`<button type="button" onClick=${() => retry(item)}>Try again</button>`}
      <button type="button" class="quiet" aria-label=${`Cancel ${item.name}`} onClick=${() => drop(item)}><${Icon} name="close" /></button>
    </div></li>`;
}

function Working({ recording }) {
  const { progress, position, eta_s: eta } = recording;
  if (position !== null) return html`<span class="quiet">Waits${position > 0 ? `, ${position} before it` : ""}</span>`;
  if (!progress || !progress.seconds) return html`<span class="quiet">Listening …</span>`;
  const left = eta === null ? "" : ` – ${roughly(eta)} left`;
  return html`<span class="quiet">${length(progress.seconds)} of ${length(progress.total)}${left}</span>
    <${Bar} share=${progress.seconds / progress.total} label=${`Progress of ${recording.name}`} />`;
}

function About({ recording }) {
  if (recording.status === "working") return html`<${Working} recording=${recording} />`;
  if (recording.status === "failed") return html`<span class="bad">${recording.error ? recording.error.message : "It failed"}</span>`;
  if (recording.status === "cancelled") return html`<span class="quiet">Cancelled</span>`;
  const facts = [recording.duration === null ? "" : length(recording.duration), languageName(recording.language), moment(recording.created)];
  return html`<span class="quiet">${facts.filter(Boolean).join(" · ")}</span>
    <span class="beginning" dir="auto">${recording.beginning || "No speech"}</span>`;
}

function Edit({ recording, act, close }) {
  const [name, setName] = useState(recording.name);
  const [tags, setTags] = useState(recording.tags.join(", "));
  const save = (event) => {
    event.preventDefault();
    if (name.trim() && name !== recording.name) act("rename", recording, name);
    const wanted = tags.split(",").map((tag) => tag.trim()).filter(Boolean);
    if (wanted.join() !== recording.tags.join()) act("tags", recording, wanted);
    close();
  };
  return html`<${Dialog} title="Name and tags" onClose=${close}><form onSubmit=${save}>
    <label>Name<input type="text" value=${name} maxlength="200" onInput=${(e) => setName(e.target.value)} /></label>
    <label>Tags, with commas<input type="text" value=${tags} onInput=${(e) => setTags(e.target.value)} /></label>
    <p class="buttons"><button class="main">Save</button></p></form><//>`;
}

function Delete({ recording, act, close }) {
  return html`<${Dialog} title="Delete the recording?" onClose=${close}>
    <p><strong>${recording.name}</strong>, its sound and its transcript will be gone.</p>
    <p class="buttons"><button type="button" class="danger" onClick=${() => { act("delete", recording); close(); }}>Delete</button>
      <button type="button" onClick=${close}>Keep</button></p><//>`;
}

export function Row({ recording, act, choice }) {
  const [dialog, setDialog] = useState("");
  const close = () => setDialog("");
  const isOpenable = recording.status === "done" || recording.status === "working";
  return html`<li class="row">
    ${choice && html`<input type="checkbox" class="choose" aria-label=${`Select ${recording.name}`} checked=${choice.isChosen} disabled=${!choice.isPossible} onChange=${choice.toggle} />`}
    <div class="what">
      ${isOpenable ? html`<a class="name" href=${`#/r/${recording.id}`}>${recording.name}</a>` : html`<strong>${recording.name}</strong>`}
      <${About} recording=${recording} />
      ${recording.tags.length > 0 && html`<span class="own-tags">${recording.tags.map((tag) => html`<span key=${tag}>${tag}</span>`)}</span>`}
    </div>
    <div class="acts">
      ${recording.status === "working" && html`<button type="button" onClick=${() => act("cancel", recording)}>Cancel</button>`}
      ${["failed", "cancelled"].includes(recording.status) && html`<button type="button" onClick=${() => act("retry", recording)}>Try again</button>`}
      <button type="button" class="quiet" aria-label=${`Name and tags of ${recording.name}`} onClick=${() => setDialog("edit")}><${Icon} name="more" /></button>
      <button type="button" class="quiet" aria-label=${`Delete ${recording.name}`} onClick=${() => setDialog("delete")}><${Icon} name="close" /></button>
    </div>
    ${dialog === "edit" && html`<${Edit} recording=${recording} act=${act} close=${close} />`}
    ${dialog === "delete" && html`<${Delete} recording=${recording} act=${act} close=${close} />`}
  </li>`;
}
