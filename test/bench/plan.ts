/** Which figure of a load is the one to compare: answers per second, or a time in milliseconds. */
export type Primary = 'per_second' | 'p50' | 'max';

export interface SpeedLoad {
  readonly what: string;
  readonly args: readonly string[];
  /** About how long it takes. */
  readonly seconds: number;
  readonly primary: Primary;
  /** How often it is run in each round: one storm is over in a moment and says little. */
  readonly repeat: number;
}

/** How much of everything one run of the benchmark does. */
export interface Plan {
  /** Fresh starts of each subject. */
  readonly starts: number;
  /** Times that each speed load is repeated, in alternation. */
  readonly rounds: number;
  readonly speed: readonly SpeedLoad[];
  readonly streams: readonly number[];
  /** Seconds without any call before memory at rest is read. */
  readonly restSeconds: number;
  readonly holdSeconds: number;
  readonly churnRounds: number;
  readonly rotation: { readonly ttlSeconds: number; readonly streams: number; readonly seconds: number };
}

function speedLoads(seconds: number, few: boolean): SpeedLoad[] {
  const timed = (what: string, args: string): SpeedLoad => (
    { what, args: [...args.split(' '), '-d', `${seconds}s`], seconds, primary: 'per_second', repeat: 1 }
  );
  const counted = (what: string, args: string, primary: Primary): SpeedLoad => (
    { what, args: args.split(' '), seconds: 5, primary, repeat: 3 }
  );
  const short = [
    counted('first X509-SVID, new connection', `first -n ${few ? 50 : 200}`, 'p50'),
    timed('JWT, same audience, 1 caller', 'jwt -c 1'),
    timed('JWT, same audience, 32 callers', 'jwt -c 32'),
    timed('JWT, new audience each, 8 callers', 'jwt -distinct -c 8'),
    timed('validate JWT, 8 callers', 'validate -c 8'),
    counted('storm of 100: last SVID', 'storm -n 100', 'max'),
    timed('connect, fetch, close, 4 at once', 'churn -c 4'),
  ];
  if (few) return short;
  return [
    ...short,
    timed('JWT, same audience, 8 callers', 'jwt -c 8'),
    timed('JWT, same audience, 32 callers on 8 connections', 'jwt -c 32 -conns 8'),
    timed('JWT, new audience each, 1 caller', 'jwt -distinct -c 1'),
    timed('JWT, new audience each, 32 callers', 'jwt -distinct -c 32'),
    timed('validate JWT, 1 caller', 'validate -c 1'),
    timed('validate JWT, 32 callers', 'validate -c 32'),
    counted('storm of 500: last SVID', 'storm -n 500', 'max'),
  ].sort((a, b) => a.what.localeCompare(b.what, 'en', { numeric: true }));
}

/** The whole list; `quick` is a few minutes' smoke run whose figures are no more than a hint. */
export function planOf(quick: boolean, rounds: number | undefined, seconds: number | undefined): Plan {
  return quick
    ? {
        starts: 1,
        rounds: rounds ?? 1,
        speed: speedLoads(seconds ?? 1, true),
        streams: [100],
        restSeconds: 2,
        holdSeconds: 3,
        churnRounds: 2_000,
        rotation: { ttlSeconds: 20, streams: 50, seconds: 35 },
      }
    : {
        starts: 5,
        rounds: rounds ?? 3,
        speed: speedLoads(seconds ?? 5, false),
        streams: [100, 500, 1_000],
        restSeconds: 10,
        holdSeconds: 30,
        churnRounds: 20_000,
        rotation: { ttlSeconds: 60, streams: 100, seconds: 300 },
      };
}
