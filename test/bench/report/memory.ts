import { countErrors, growthPerThousand, type Figures } from '../figures.ts';
import { descriptorsOf, errorsText, mebibytes, memoryOf, range, type Section } from './cells.ts';
import { figure } from './table.ts';
import type { ProcessReport } from '../load-client.ts';

export function memorySection({ memory }: Figures): Section {
  return {
    title: 'Memory at rest and with streams',
    notes: [
      'MiB as RSS / PSS / anonymous of the agent (SPIRE\'s server not counted).',
      'Each on a fresh agent, with none of the others up.',
      'At rest: after one client. Each stream on a connection of its own; for each: KiB of RSS / PSS / anonymous, and descriptors.',
      'Idle CPU: seconds of agent (+ server) in a minute with the streams open. Closed: three seconds after the last close.',
    ],
    head: [
      'streams', 'subject', 'at rest', 'open', 'each KiB', 'each fds', 'all served ms', 'idle CPU s/min', 'watched s', 'closed',
      'fds before→closed', 'errors',
    ],
    rows: (memory?.rows ?? []).map(({ streams, subject, samples, failures }) => {
      const report = samples[0]?.report;
      const detail = report?.detail;
      const before = report?.processes?.[0]?.before;
      const each = detail?.per_stream;
      return [
        streams.toLocaleString('en'),
        subject,
        memoryOf(before),
        memoryOf(detail?.open[0]),
        each === undefined ? '–' : [each.rss_kib, each.pss_kib, each.anonymous_kib].map(figure).join(' / '),
        figure(each?.fds),
        figure(detail?.all_after_ms),
        (detail?.hold_cpu_s ?? []).map((s) => figure((s * 60) / (detail?.hold_s ?? NaN))).join(' + '),
        figure(detail?.hold_s),
        memoryOf(detail?.closed[0]),
        `${descriptorsOf(before)}→${descriptorsOf(detail?.closed[0])}`,
        errorsText(countErrors([report?.errors ?? {}, detail?.broken ?? {}]), failures),
      ];
    }),
  };
}

/** Memory that has come back to this much of what it was at rest counts as given back. */
const BACK = 1.15;

function isBack(agent: ProcessReport | undefined, key: 'rss_kib' | 'anonymous_kib'): string {
  if (agent === undefined) return '–';
  const more = agent.after[key] / agent.before[key];
  return `${more <= BACK ? 'yes' : 'no'} (${more >= 1 ? '+' : ''}${figure((more - 1) * 100)} %)`;
}

export function peaksSection({ peaks }: Figures): Section {
  const waited = peaks?.rows[0]?.args.at(-1) ?? '';
  return {
    title: 'Memory under load, and after it',
    notes: [
      'On a fresh agent. At rest and after: MiB as RSS / PSS / anonymous. Peak: resident (VmHWM) / anonymous (looked at every 20 ms).',
      `After: ${waited} without a call. Back: not more than ${figure((BACK - 1) * 100)} % above rest, resident / anonymous.`,
      'Growth: KiB of anonymous memory for 1,000 connections, in the second half.',
    ],
    head: ['what', 'subject', 'per second', 'at rest', 'peak', 'after', 'back', 'growth', 'fds before→after', 'errors'],
    rows: (peaks?.rows ?? []).map(({ what, subject, samples, failures }) => {
      const report = samples[0]?.report;
      const agent = report?.processes?.[0];
      return [
        what,
        subject,
        figure(report?.per_second),
        memoryOf(agent?.before),
        agent === undefined ? '–' : `${mebibytes(agent.peak.rss_kib)} / ${mebibytes(agent.peak.anonymous_kib)}`,
        memoryOf(agent?.after),
        `${isBack(agent, 'rss_kib')} / ${isBack(agent, 'anonymous_kib')}`,
        report?.detail === undefined ? '' : figure(growthPerThousand(report.detail)),
        `${descriptorsOf(agent?.before)}→${descriptorsOf(agent?.after)}`,
        errorsText(countErrors([report?.errors ?? {}]), failures),
      ];
    }),
  };
}

export function rotationSection({ rotation }: Figures): Section {
  return {
    title: 'Renewal on open streams',
    notes: [
      'First to last: ms between the first and the last stream that had the new certificate. Plain: what as many plain writes of the same '
        + 'size to Unix sockets take, for the same kind of reader.',
      'Left: seconds that the old certificate was still valid at the push.',
      'Gone: part of its notBefore–notAfter at the push, back-dating included.',
      'Expired: streams that ever held an expired certificate; broken: that ended.',
      'Repeated: messages with the certificate that the stream already had; partial: renewals that missed a stream.',
    ],
    head: [
      'what', 'subject', 'renewals', 'first to last', 'plain', 'bytes', 'left s', 'gone', 'expired', 'broken', 'repeated', 'partial', 'CPU s',
      'errors',
    ],
    rows: (rotation?.rows ?? []).map(({ what, subject, samples, failures }) => {
      const report = samples[0]?.report;
      const detail = report?.detail;
      const rotations = detail?.rotations ?? [];
      return [
        what,
        subject,
        figure(detail === undefined ? undefined : rotations.length),
        range(rotations.map((r) => r.spread_ms)),
        figure(detail?.plain?.spread_ms),
        figure(detail?.message_bytes),
        range(rotations.map((r) => r.left_s)),
        range(rotations.map((r) => r.life_gone)),
        figure(detail?.expired),
        figure(detail?.broken),
        figure(detail?.repeated),
        figure(detail?.incomplete),
        (report?.processes ?? []).map(({ cpu_s }) => figure(cpu_s)).join(' + '),
        errorsText(countErrors([report?.errors ?? {}, detail?.wrong ?? {}]), failures),
      ];
    }),
  };
}
