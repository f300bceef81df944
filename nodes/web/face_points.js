// The Face Points node in the browser: a preview on the node, and a button that opens the editor.
//
// The text widget `points` is the truth. Preview and editor follow it; only Apply writes to it. The picture is the file
// chosen in a connected Load Image, or what the node was given when it last ran.

import { app } from '../../scripts/app.js';
import { api } from '../../scripts/api.js';
import { drawLines, drawPicture, fitted } from './face_points_draw.js';
import { FacePointsEditor } from './face_points_editor.js';
import { beginning, complete } from './face_points_geometry.js';

const NODE = 'MoEEFacePoints';
const WATCH_MS = 250;
const PREVIEW_HEIGHT = 220;
const SIZE = [340, 480];

let tableAsked = null;

/** Names, template and limits, as Python wrote them. */
function loadTable() {
  tableAsked ??= fetch(new URL('./face_points.json', import.meta.url)).then((reply) => reply.json());
  return tableAsked;
}

function viewUrl(filename, subfolder, type) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder: subfolder ?? '', type: type ?? 'input' })}`);
}

/** An image, or null for one that cannot be shown any more. */
async function loadPicture(url) {
  if (!url) return null;
  const picture = new Image();
  picture.src = url;
  return picture.decode().then(
    () => picture,
    () => null,
  );
}

/** The node an input comes from, past reroutes. */
function origin(node, name) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  let from = slot < 0 ? null : node.getInputNode(slot);
  for (let hops = 0; from?.type === 'Reroute' && hops < 100; hops++) from = from.getInputNode(0);
  return from;
}

/** The address of the file a connected Load Image has chosen, or ''. */
function chosenFile(node) {
  const from = origin(node, 'image');
  if (!['LoadImage', 'LoadImageOutput'].includes(from?.type) || from.mode) return '';
  const value = from.widgets?.find((widget) => widget.name === 'image')?.value;
  if (typeof value !== 'string' || !value) return '';
  const [, path, type] = value.match(/^(.*?)(?: \[(input|output|temp)\])?$/s);
  const cut = path.lastIndexOf('/');
  return viewUrl(path.slice(cut + 1), cut < 0 ? '' : path.slice(0, cut), type);
}

class FaceNode {
  #node;
  #ran = null; // { url, points, start, file } of the last run
  #seen = '';
  #picture = null;
  #canvas = document.createElement('canvas');
  #editor = null;
  #timer = 0;

  constructor(node) {
    this.#node = node;
    const frame = document.createElement('div');
    Object.assign(frame.style, { minHeight: `${PREVIEW_HEIGHT}px`, position: 'relative', pointerEvents: 'none' });
    Object.assign(this.#canvas.style, { position: 'absolute', inset: 0, width: '100%', height: '100%' });
    this.#canvas.setAttribute('role', 'img');
    this.#canvas.setAttribute('aria-label', 'The portrait with its points');
    frame.append(this.#canvas);

    const options = { serialize: false };
    const button = node.addWidget('button', 'Edit points', null, () => this.edit(), options);
    const getMinHeight = () => PREVIEW_HEIGHT;
    const preview = node.addDOMWidget('face_preview', 'moee_face_preview', frame, { ...options, getMinHeight });
    button.serialize = preview.serialize = false;
    node.setSize(SIZE.map((least, axis) => Math.max(node.size[axis], least)));

    const before = { onExecuted: node.onExecuted, onRemoved: node.onRemoved };
    node.onExecuted = (output) => {
      before.onExecuted?.call(node, output);
      this.#took(output);
    };
    node.onRemoved = () => {
      before.onRemoved?.call(node);
      this.#end();
    };
    // No event tells, in every renderer, that the text, a link, or another node's file has changed.
    this.#timer = setInterval(() => this.#watch(), WATCH_MS);
    this.#resize.observe(frame);
  }

  get #widget() {
    return this.#node.widgets?.find((widget) => widget.name === 'points');
  }

  /** Whether the points come from another node; the last run then says what they were. */
  get #linked() {
    return Boolean(origin(this.#node, 'points'));
  }

  get #text() {
    return String((this.#linked ? this.#ran?.points : this.#widget?.value) ?? '');
  }

  get #url() {
    return chosenFile(this.#node) || this.#ran?.url || '';
  }

  /** What an empty text means, if the last run saw the same picture. */
  get #start() {
    const file = chosenFile(this.#node);
    return !file || file === this.#ran?.file ? (this.#ran?.start ?? null) : null;
  }

  #took(output) {
    const [picture] = output?.moee_picture ?? [];
    if (!picture) return;
    this.#ran = {
      url: viewUrl(picture.filename, picture.subfolder, picture.type),
      points: output.moee_points?.[0] ?? null,
      start: output.moee_start?.[0] ?? null,
      file: chosenFile(this.#node),
    };
  }

  #watch() {
    if (!this.#ran) this.#took(app.nodeOutputs?.[String(this.#node.id)]); // a workflow that was opened again
    const seen = JSON.stringify([this.#text, this.#url, this.#start]);
    if (seen === this.#seen) return;
    this.#seen = seen;
    this.#follow(seen);
  }

  async #follow(seen) {
    const picture = this.#picture?.url === this.#url ? this.#picture : null;
    const [url, image] = [this.#url, picture?.image ?? (await loadPicture(this.#url))];
    if (seen !== this.#seen) return; // overtaken
    const changed = image !== this.#picture?.image;
    this.#picture = { url, image };
    if (this.#editor && (changed || this.#editor.text !== this.#text)) this.#editor.show(this.#content);
    await this.#paint();
  }

  get #content() {
    return { picture: this.#picture?.image ?? null, text: this.#text, start: this.#start };
  }

  async edit() {
    if (this.#editor) return;
    const table = await loadTable();
    this.#watch();
    if (this.#picture?.url !== this.#url) this.#picture = { url: this.#url, image: await loadPicture(this.#url) };
    if (this.#editor) return;
    this.#editor = new FacePointsEditor({
      table,
      title: this.#node.title || 'Face Points',
      locked: this.#linked ? 'The points come from another node: disconnect it to write points here.' : '',
      onApply: (text) => this.#write(text),
      onClose: () => {
        this.#editor = null;
        this.#node.setDirtyCanvas?.(true, true); // or the classic button stays drawn as pressed
      },
    });
    this.#editor.show(this.#content);
    this.#editor.open();
  }

  #write(text) {
    const widget = this.#widget;
    if (!widget) return;
    widget.value = text;
    this.#watch();
  }

  // The preview.

  #resize = new ResizeObserver(() => this.#paint());

  async #paint() {
    const table = await loadTable();
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width || !height) return;
    const ratio = 2; // the graph is zoomed by CSS, which the canvas does not see
    [this.#canvas.width, this.#canvas.height] = [width * ratio, height * ratio];
    const context = this.#canvas.getContext('2d');
    context.scale(ratio, ratio);
    const image = this.#picture?.image ?? null;
    const size = image ? [image.naturalWidth, image.naturalHeight] : null;
    const { set, notice } = beginning(this.#text, size, this.#start, table);
    if (set) {
      const view = fitted([-0.5, -0.5, set.width - 0.5, set.height - 0.5], width, height);
      const full = complete(set.points, table);
      drawPicture(context, view, image, [set.width, set.height]);
      drawLines(context, view, full, table, { width: 1 });
    }
    const note = notice || (set ? '' : 'run once to see the picture');
    if (note) this.#tell(context, note, width, height);
  }

  #tell(context, note, width, height) {
    context.font = '11px system-ui, sans-serif';
    context.textAlign = 'center';
    const rows = note.match(/.{1,46}(?:\s|$)/g) ?? [note];
    const top = height - 15 * rows.length - 6;
    context.fillStyle = 'rgba(0, 0, 0, 0.7)';
    context.fillRect(0, top - 4, width, height - top + 4);
    context.fillStyle = '#ffc46b';
    rows.forEach((row, i) => context.fillText(row.trim(), width / 2, top + 11 + 15 * i));
  }

  #end() {
    clearInterval(this.#timer);
    this.#resize.disconnect();
    this.#editor?.close();
  }
}

app.registerExtension({
  name: 'moee.facePoints',
  nodeCreated(node) {
    if (node.comfyClass === NODE) new FaceNode(node);
  },
});
