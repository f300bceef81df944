// Draws a set of face points on a 2D canvas: lines, irises, handles. Knows nothing of pages or pointers.
//
// A view is { x, y, scale }: where the picture's first pixel centre is on the canvas, and canvas pixels per picture pixel.

import { irisOf, partOf } from './face_points_geometry.js';

export const BAD = '#ff4545';
const SHADE = 'rgba(0, 0, 0, 0.55)';

export const toScreen = (view, [x, y]) => [view.x + x * view.scale, view.y + y * view.scale];
export const toPicture = (view, [x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

/** The view that shows the box [x0, y0, x1, y1] of the picture as large as `width` times `height` allow. */
export function fitted([x0, y0, x1, y1], width, height, margin = 0) {
  const scale = Math.min((width - 2 * margin) / (x1 - x0), (height - 2 * margin) / (y1 - y0));
  return { scale, x: width / 2 - ((x0 + x1) / 2) * scale, y: height / 2 - ((y0 + y1) / 2) * scale };
}

export function drawPicture(context, view, picture, [width, height]) {
  const [x, y] = toScreen(view, [-0.5, -0.5]);
  context.imageSmoothingEnabled = view.scale < 4;
  context.fillStyle = '#3a3a3a';
  context.fillRect(x, y, width * view.scale, height * view.scale);
  if (picture) context.drawImage(picture, x, y, width * view.scale, height * view.scale);
}

export function colourOf(name, table) {
  return table.colours[name.startsWith('iris') ? 'iris' : partOf(name).split('_')[0]];
}

/** The lines of brows, lids, nose, lips and jaw, and the irises; lines through two `blamed` points are red. */
export function drawLines(context, view, full, table, { blamed = [], width = 1.5 } = {}) {
  context.lineJoin = context.lineCap = 'round';
  const stroke = (path, colour, bad) => {
    context.lineWidth = width + 1.5;
    context.strokeStyle = 'rgba(0, 0, 0, 0.28)';
    context.stroke(path);
    context.lineWidth = bad ? width + 0.5 : width;
    context.strokeStyle = bad ? BAD : colour;
    context.stroke(path);
  };
  context.globalAlpha = 0.85;
  for (const { part, members } of table.lines) {
    const bad = members.some((name) => blamed.includes(name));
    stroke(smooth(members.map((name) => toScreen(view, full[name]))), table.colours[part], bad);
  }
  for (const side of ['R', 'L']) {
    const [x, y, radius] = irisOf(full, side, table);
    const circle = new Path2D();
    circle.arc(...toScreen(view, [x, y]), radius * view.scale, 0, 2 * Math.PI);
    stroke(circle, table.colours.iris, false);
  }
  context.globalAlpha = 1;
}

/** A smooth path through all points: Bezier pieces whose tangents weigh the neighbours by their distance. */
function smooth(points) {
  const path = new Path2D();
  const last = points.length - 1;
  const away = (i) => Math.hypot(points[i + 1][0] - points[i][0], points[i + 1][1] - points[i][1]) + 1e-6;
  const direction = (i, axis) => (points[i + 1][axis] - points[i][axis]) / away(i);
  const tangent = (i, axis) => {
    if (i === 0 || i === last) return direction(Math.min(i, last - 1), axis);
    const [before, after] = [away(i - 1), away(i)];
    return (direction(i - 1, axis) * after + direction(i, axis) * before) / (before + after);
  };
  const control = (i, by) => [0, 1].map((axis) => points[i][axis] + (by / 3) * tangent(i, axis));
  path.moveTo(...points[0]);
  for (let i = 0; i < last; i++)
    path.bezierCurveTo(...control(i, away(i)), ...control(i + 1, -away(i)), ...points[i + 1]);
  return path;
}

/** One handle: an open ring, so that the face stays visible under it. */
export function drawHandle(context, [x, y], colour, { given = true, bad = false, selected = false, hovered = false }) {
  const radius = (given ? 5 : 3.2) + (selected || hovered ? 1.5 : 0);
  const ring = (size, width, style) => {
    context.beginPath();
    context.arc(x, y, size, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = style;
    context.stroke();
  };
  ring(radius + 1.2, 1.6, SHADE);
  if (selected) {
    context.fillStyle = bad ? BAD : colour;
    context.fill();
  }
  ring(radius, bad ? 2.6 : 2, selected ? '#fff' : bad ? BAD : colour);
}

/** A name beside a point, kept on the canvas. */
export function drawLabel(context, [x, y], text, colour, width) {
  context.font = '12px system-ui, sans-serif';
  const wide = context.measureText(text).width + 14;
  const left = x + 14 + wide > width ? x - 14 - wide : x + 14;
  const top = Math.max(y - 28, 2);
  context.fillStyle = 'rgba(15, 15, 18, 0.88)';
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  context.roundRect(left, top, wide, 20, 5);
  context.fill();
  context.stroke();
  context.fillStyle = '#fff';
  context.textBaseline = 'middle';
  context.fillText(text, left + 7, top + 10.5);
}

/** The person's own sides, beside the ears. */
export function drawSides(context, view, full) {
  context.font = '600 13px system-ui, sans-serif';
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  for (const [side, shift] of [['R', -22], ['L', 22]]) {
    const [x, y] = toScreen(view, full[`jaw_${side}_ear`]);
    context.lineWidth = 3;
    context.strokeStyle = SHADE;
    context.strokeText(side, x + shift, y);
    context.fillStyle = '#fff';
    context.fillText(side, x + shift, y);
  }
  context.textAlign = 'start';
}
