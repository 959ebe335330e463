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

export interface RotationLoad {
  readonly ttlSeconds: number;
  readonly streams: number;
  readonly seconds: number;
}

/** How much of everything one run of the benchmark does. */
export interface Plan {
  /** Rounds and seconds for mint.ts; its own defaults where empty. */
  readonly mintArgs: readonly string[];
  /** Fresh starts of each subject, and as many restarts on kept state. */
  readonly starts: number;
  /** Times that each speed load is repeated, in alternation. */
  readonly rounds: number;
  readonly speed: readonly SpeedLoad[];
  readonly memory: readonly { readonly streams: number; readonly holdSeconds: number }[];
  /** Seconds without any call before memory at rest is read. */
  readonly restSeconds: number;
  /** Seconds without any call before memory after a load is read. */
  readonly settleSeconds: number;
  readonly stormCallers: number;
  readonly churnRounds: number;
  readonly storms: number;
  /** Storms of processes after the one on a fresh agent. */
  readonly usersAgain: number;
  readonly reconnects: number;
  readonly reconnectStreams: number;
  readonly fairness: { readonly rounds: number; readonly fetches: number; readonly seconds: number };
  readonly rotations: readonly RotationLoad[];
}

/** Fetches per round whose figure is a time, storms per round. */
const REPEAT = 3;

function timed(what: string, args: string, seconds: number): SpeedLoad {
  return { what, args: [...args.split(' '), '-d', `${seconds}s`], seconds, primary: 'per_second', repeat: 1 };
}

function counted(what: string, args: string, primary: Primary, repeat = REPEAT): SpeedLoad {
  return { what, args: args.split(' '), seconds: 5, primary, repeat };
}

const callers = (count: number): string => (count === 1 ? '1 caller' : `${count} callers`);

/** The loads by the client that costs least, so that the agent is what is measured. */
function ownLoads(seconds: number, few: boolean): SpeedLoad[] {
  const calls = (what: string, args: string, some: number): SpeedLoad[] =>
    (few ? [some] : [1, 8, 32]).map((count) => timed(`${what}, ${callers(count)}`, `${args} -c ${count}`, seconds));
  return [
    counted('first X509-SVID, new connection', `first -n ${few ? 100 : 200}`, 'p50'),
    ...calls('JWT from memory', 'jwt', 1),
    ...calls('JWT minted', 'jwt -distinct', 8),
    ...calls('JWT validated', 'validate', 8),
    ...(few ? [] : [timed('JWT from memory, 32 callers on 8 connections', 'jwt -c 32 -conns 8', seconds)]),
    counted('storm of 100: last SVID', 'storm -n 100 -timeout 5s', 'max'),
    counted('storm of 500: last SVID', 'storm -n 500 -timeout 5s', 'max', few ? 1 : REPEAT),
    timed('connect, fetch, close, 4 at once', 'churn -c 4', seconds),
  ];
}

/** Some of them again by the client that workloads have. It takes as much CPU as the agent, so that ratios come out nearer to 1. */
function grpcLoads(seconds: number, few: boolean): SpeedLoad[] {
  const again = [
    counted('first X509-SVID, new connection', `first -n ${few ? 50 : 200}`, 'p50', 1),
    ...(few ? [] : [
      timed('JWT from memory, 1 caller', 'jwt -c 1', seconds),
      timed('JWT from memory, 32 callers', 'jwt -c 32', seconds),
      timed('JWT minted, 8 callers', 'jwt -distinct -c 8', seconds),
      timed('JWT validated, 8 callers', 'validate -c 8', seconds),
    ]),
    ...(few ? [] : [timed('connect, fetch, close, 4 at once', 'churn -c 4', seconds)]),
  ];
  return again.map((load) => ({ ...load, what: `${load.what}, as grpc-go sees it`, args: [...load.args, '-via', 'grpc-go'] }));
}

/** The whole list; `quick` is a smoke run of a minute or two whose figures are no more than a hint. */
export function planOf(quick: boolean, rounds: number | undefined, seconds: number | undefined): Plan {
  return quick
    ? {
        mintArgs: ['1', '1'],
        starts: 1,
        rounds: rounds ?? 1,
        speed: [...ownLoads(seconds ?? 1, true), ...grpcLoads(seconds ?? 1, true)],
        memory: [{ streams: 100, holdSeconds: 3 }],
        restSeconds: 2,
        settleSeconds: 3,
        stormCallers: 500,
        churnRounds: 2_000,
        storms: 5,
        usersAgain: 1,
        reconnects: 1,
        reconnectStreams: 100,
        fairness: { rounds: 1, fetches: 50, seconds: 4 },
        rotations: [{ ttlSeconds: 10, streams: 100, seconds: 12 }],
      }
    : {
        mintArgs: [],
        starts: 5,
        rounds: rounds ?? 3,
        speed: [...ownLoads(seconds ?? 3, false), ...grpcLoads(seconds ?? 3, false)],
        memory: [{ streams: 100, holdSeconds: 60 }, { streams: 500, holdSeconds: 5 }, { streams: 1_000, holdSeconds: 5 }],
        restSeconds: 5,
        settleSeconds: 20,
        stormCallers: 500,
        churnRounds: 20_000,
        storms: 200,
        usersAgain: 3,
        reconnects: 3,
        reconnectStreams: 500,
        fairness: { rounds: 3, fetches: 200, seconds: 10 },
        rotations: [{ ttlSeconds: 60, streams: 100, seconds: 100 }, { ttlSeconds: 60, streams: 1_000, seconds: 100 }],
      };
}
