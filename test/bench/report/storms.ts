import { countErrors, median, type Figures } from '../figures.ts';
import { errorsText, mebibytes, range, type Section } from './cells.ts';
import { figure } from './table.ts';

export function usersSection({ users }: Figures): Section {
  return {
    title: 'Storms of processes',
    notes: [
      'Each caller is a process of its own under a user of its own with an identity of its own; all connect at one instant. '
        + 'Everybody got the own identity, or it counts as an error.',
      'Times in ms from that instant, median of the storms. Own p50: from the caller\'s own connect.',
      '"First time": the agent has not been asked for these identities before. SPIRE\'s agent signs all of them ahead when it starts.',
      'Peak: MiB of the agent in the storm, resident (VmHWM) / anonymous (looked at every 20 ms), most of all storms.',
    ],
    head: ['what', 'subject', 'storms', 'last', 'p50', 'p99', 'own p50', 'agent CPU ms each', 'peak', 'errors'],
    rows: (users?.rows ?? []).map(({ what, subject, samples, failures }) => {
      const reports = samples.map(({ report }) => report);
      const middle = (pick: (r: (typeof reports)[number]) => number | undefined): string => figure(median(reports.flatMap((r) => pick(r) ?? [])));
      const most = (key: 'rss_kib' | 'anonymous_kib'): string => mebibytes(Math.max(...reports.map((r) => r.processes?.[0]?.peak[key] ?? NaN)));
      return [
        what, subject, String(samples.length), middle((r) => r.latency_ms?.max), middle((r) => r.latency_ms?.p50),
        middle((r) => r.latency_ms?.p99), middle((r) => r.detail?.own_ms?.p50),
        middle((r) => (r.count === 0 ? undefined : ((r.processes?.[0]?.cpu_s ?? NaN) * 1000) / r.count)),
        `${most('rss_kib')} / ${most('anonymous_kib')}`,
        errorsText(countErrors(reports.map((r) => r.errors)), failures),
      ];
    }),
  };
}

export function stormsSection({ storms }: Figures): Section {
  return {
    title: 'Storm after storm on one agent',
    notes: ['Lost: callers without an SVID within 20 s; no storm follows one that lost some. Times in ms until the last caller had its SVID.'],
    head: ['what', 'subject', 'storms', 'lost callers', 'last: median', 'last: longest', 'errors'],
    rows: (storms?.rows ?? []).map(({ what, subject, samples, failures }) => {
      const report = samples[0]?.report;
      const { last_ms, lost_in, served } = report?.detail ?? {};
      const asked = served?.[0] ?? NaN;
      const lost = lost_in === 0 ? 'none' : `${asked - (served?.at(-1) ?? NaN)} in storm ${lost_in}`;
      return [
        what, subject, figure(served?.length), report === undefined ? '–' : lost,
        figure(median(last_ms ?? [])), figure(Math.max(...(last_ms ?? [NaN]))),
        errorsText(countErrors([report?.errors ?? {}]), failures),
      ];
    }),
  };
}

export function restartSection({ restart }: Figures): Section {
  return {
    title: 'Restart under open streams',
    notes: [
      'The agent gets SIGTERM and is started again as soon as it has ended. Every stream that broke connects again each 5 ms.',
      'Times in ms until the last stream had an SVID again, median of the restarts.',
    ],
    head: ['what', 'subject', 'restarts', 'from the signal', 'from the new start', 'first to last', 'errors'],
    rows: (restart?.rows ?? []).map(({ what, subject, samples, failures, fromSignalMs, fromStartMs, firstToLastMs }) => [
      what, subject, String(samples.length), figure(median(fromSignalMs)), figure(median(fromStartMs)), range(firstToLastMs),
      errorsText(countErrors(samples.map(({ report }) => report.errors)), failures),
    ]),
  };
}
