import test from 'ava';
import { figuresWith } from '../fixtures.ts';
import { barRows, picture } from './picture.ts';

test('better goes to the right of 1, worse to the left, and each has its figure', (t) => {
  const svg = picture(['SPIRE'], [{ name: 'a', ratios: [2] }, { name: 'b', ratios: [0.5] }, { name: 'c', ratios: [undefined] }], '2026-01-02');
  const bars = [...svg.matchAll(/<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="9"/g)].map(([, x, width]) => [Number(x), Number(width)]);
  t.deepEqual(bars, [[620, 230], [390, 230]]);
  t.true(svg.includes('>2×</text>'));
  t.true(svg.includes('>0.5×</text>'));
});

test('names are text, whatever is in them', (t) => {
  const svg = picture(['a<b'], [{ name: 'x & <y>', ratios: [1] }], '');
  t.true(svg.includes('x &amp; &lt;y&gt;'));
  t.false(svg.includes('<y>'));
});

test('it has the ratios of the results, and nothing from elsewhere', (t) => {
  const rows = barRows(figuresWith());
  t.deepEqual(rows, [{ name: 'JWT', ratios: [4] }]);
  t.notRegex(picture(['SPIRE'], rows, '').replace('http://www.w3.org/2000/svg', ''), /https?:|<script|href/);
});
