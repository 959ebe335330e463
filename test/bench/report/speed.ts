import { median, summarise, type Figures, type SpeedRow, type StartRow } from '../figures.ts';
import { errorsText, range, type Section } from './cells.ts';
import { figure } from './table.ts';

export function startSection({ start }: Figures): Section {
  return {
    title: 'Start to first SVID',
    notes: [
      'Fresh state: keys and CA are made, or for SPIRE a new join token is spent; its server is already up.',
      'Restart: the agent ended with SIGTERM and started as it was, with what it keeps on disk (SPIRE: KeyManager "disk").',
    ],
    head: ['what', 'subject', 'starts', 'best ms', 'median ms', 'longest ms', 'failed'],
    rows: (start?.rows ?? []).map(({ what, subject, ms, failures }: StartRow) => [
      what, subject, String(ms.length), figure(Math.min(...ms)), figure(median(ms)), figure(Math.max(...ms)), String(failures.length),
    ]),
  };
}

export function speedSection({ speed }: Figures): Section {
  return {
    title: 'Speed',
    notes: [
      'Times in ms; "best / median" over the rounds, else the median. Rounds alternate between the subjects.',
      'CPU: ms for one operation, least of all rounds; for SPIRE agent + server. Client: the same of the load generator.',
      'The client writes HTTP/2 frames itself and checks the status and content of every answer; rows "as grpc-go sees it" use the client '
        + 'that workloads have, whose own CPU is part of what they see.',
      'The figure with a star is the one that is compared.',
      'load: one-minute load average before the first and after the last round; others: most CPU that other processes took.',
    ],
    head: ['what', 'subject', 'runs', 'per second', 'p50', 'p90', 'p99', 'max', 'CPU', 'client', 'errors', 'load', 'others'],
    rows: (speed?.rows ?? []).map(speedLine),
  };
}

function speedLine(row: SpeedRow): string[] {
  const s = summarise(row.samples);
  const star = (key: SpeedRow['primary'], text: string): string => (key === row.primary ? `${text} *` : text);
  const [first, last] = [row.samples[0], row.samples.at(-1)];
  return [
    row.what,
    row.subject,
    String(s.runs),
    row.primary === 'per_second' ? star('per_second', `${figure(s.perSecond.best)} / ${figure(s.perSecond.median)}`) : '',
    star('p50', `${figure(s.p50.best)} / ${figure(s.p50.median)}`),
    figure(s.p90),
    figure(s.p99),
    star('max', figure(s.max)),
    s.cpuMs.map((ms) => figure(ms)).join(' + '),
    figure(s.clientMs),
    errorsText(s.errors, row.failures),
    `${figure(first?.busyness.before)}→${figure(last?.busyness.after)}`,
    `${figure(s.others * 100)} %`,
  ];
}

export function mintSection({ mint }: Figures): Section {
  return {
    title: 'Minting, in one process and without a wire',
    notes: [],
    head: ['what', 'per second', 'note'],
    rows: (mint?.rows ?? []).map(({ what, per_second, note }) => [what, figure(per_second), note ?? '']),
  };
}

export function fairnessSection({ fairness }: Figures): Section {
  return {
    title: 'One user beside a noisy one',
    notes: [
      'Every limit as the product is delivered. The noisy user, a process of its own, has 64 connections: half come and go, half ask for new tokens, '
        + 'eight calls at once on each.',
      'Times in ms of the other user\'s first X509-SVIDs over new connections, one after the other; range over the rounds. '
        + 'Bound: how many times as long its p99 became at most.',
    ],
    head: [
      'subject', 'rounds', 'p50 alone', 'p99 alone', 'p50 beside', 'p99 beside', 'bound', 'fetches beside', 'noise answered /s', 'noise refused /s',
      'errors',
    ],
    rows: (fairness?.rows ?? []).map(({ subject, samples, failures }) => {
      const details = samples.flatMap(({ report }) => report.detail ?? []);
      const refused = details.map(({ noise }) => Object.values(noise.errors).reduce((sum, n) => sum + n, 0) / noise.seconds);
      const errors = details.flatMap(({ quiet, noisy }) => [quiet.errors, noisy.errors]);
      const bounds = details.map(({ quiet, noisy }) => (noisy.latency_ms?.p99 ?? NaN) / (quiet.latency_ms?.p99 ?? NaN));
      const part = (which: 'quiet' | 'noisy', key: 'p50' | 'p99'): string => range(details.map((d) => d[which].latency_ms?.[key] ?? NaN));
      return [
        subject, String(samples.length), part('quiet', 'p50'), part('quiet', 'p99'), part('noisy', 'p50'), part('noisy', 'p99'),
        bounds.length === 0 ? '–' : `${figure(Math.max(...bounds))}×`,
        range(details.map(({ noisy }) => noisy.count)),
        range(details.map(({ noise }) => noise.per_second)),
        range(refused),
        errorsText(new Map(errors.flatMap((one) => Object.entries(one))), failures),
      ];
    }),
  };
}
