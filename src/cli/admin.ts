import type { IncomingMessage } from 'node:http';
import { request } from '../http.ts';
import { resolve } from 'node:path';
import type { AdminFailure } from '../admin/messages.ts';
import { messageOf, systemCode } from '../errors.ts';
import { DEFAULT_ADMIN_SOCKET } from './admin-options.ts';
import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { printable } from './render.ts';
import { CommandError, UsageError } from './usage-error.ts';

const DEFAULT_TIMEOUT_MS = 30_000;

/** More than the agent answers for a node full of pods. */
const MOST_ANSWER_BYTES = 32 << 20;

/** Nobody answers, or not now: exit code 3. */
class Unreachable extends Error {
  readonly next: string;

  constructor(message: string, next: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'Unreachable';
    this.next = next;
  }
}

/** Asks the agent and hands what it answers to `show`, which returns the exit code. `body`: the request is a POST. */
export async function askAgent<T>(
  context: Context,
  target: string,
  body: string | undefined,
  show: (answer: T) => Promise<ExitCode>,
): Promise<ExitCode> {
  const { args, io, note } = context;
  const path = resolve(args.text('admin') ?? (io.env['SIGNET_ADMIN_SOCKET'] || DEFAULT_ADMIN_SOCKET));
  const bound = AbortSignal.timeout(args.duration('timeout') ?? DEFAULT_TIMEOUT_MS);
  try {
    return await show((await exchange(path, target, body, AbortSignal.any([bound, io.signal]))) as T);
  } catch (error) {
    const unreachable = bound.aborted && !io.signal.aborted ? tooLate(path, error) : error;
    if (!(unreachable instanceof Unreachable)) throw error;
    await note(`signet: ${unreachable.message}\n  ${unreachable.next}`);
    return EXIT.unreachable;
  }
}

async function exchange(path: string, target: string, body: string | undefined, signal: AbortSignal): Promise<unknown> {
  const { status, text } = await send(path, target, body, signal).catch((error: unknown) => {
    throw signal.aborted ? error : explainSocket(path, error);
  });
  const answer = parse(text);
  if (status === 200 && answer !== undefined) return answer;
  throw failureOf(path, status, answer as AdminFailure | undefined);
}

function send(
  path: string,
  target: string,
  body: string | undefined,
  signal: AbortSignal,
): Promise<{ status: number; text: string }> {
  const bytes = Buffer.from(body ?? '');
  const method = body === undefined ? 'GET' : 'POST';
  const headers = body === undefined ? {} : { 'Content-Type': 'application/yaml', 'Content-Length': bytes.length };
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: path, path: target, method, headers, signal, agent: false });
    asked.once('error', reject);
    asked.once('response', (response) => {
      readAnswer(response).then((text) => resolve({ status: response.statusCode ?? 0, text }), reject);
    });
    asked.end(bytes);
  });
}

async function readAnswer(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > MOST_ANSWER_BYTES) throw new RangeError(`the answer has more than ${MOST_ANSWER_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function parse(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** What the agent says no with, as the command ends with it. */
function failureOf(path: string, status: number, answer: AdminFailure | undefined): Error {
  const error = answer?.error;
  if (typeof error?.message !== 'string') {
    return new CommandError(`what answers at ${path} is not an agent (HTTP ${status})`, 'name its admin socket with --admin');
  }
  const message = printable(error.message);
  const next = printable(error.next ?? 'see the log of the agent');
  if (error.code === 'bad_request') return new UsageError(message);
  if (error.code === 'bad_rules') return new UsageError([message, ...(error.problems ?? []).map(formatProblem)].join('\n'));
  if (['busy', 'not_ready', 'too_slow'].includes(error.code)) return new Unreachable(message, next);
  return new CommandError(message, next);
}

export function formatProblem({ path, found, allowed }: { path: string; found: string; allowed: string }): string {
  return `  ${printable(path)}: found ${printable(found)}, allowed: ${printable(allowed)}`;
}

function tooLate(path: string, cause: unknown): Unreachable {
  return new Unreachable(
    `the agent at ${path} did not answer in time`,
    'allow more with --timeout 2m, or see whether the agent is stuck',
    { cause },
  );
}

function explainSocket(path: string, cause: unknown): Error {
  const code = systemCode(cause);
  const [message, next] = socketProblem(path, code, messageOf(cause));
  return new Unreachable(message, next, { cause });
}

function socketProblem(path: string, code: string | undefined, text: string): [message: string, next: string] {
  const elsewhere =
    'is the agent running on this node? If its admin socket is elsewhere, name it with --admin or SIGNET_ADMIN_SOCKET';
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return [`there is no agent at ${path}`, elsewhere];
    case 'ECONNREFUSED':
    case 'ENOTSOCK':
      return [
        `nobody listens at ${path}: its agent has ended, or it is no socket`,
        'start the agent again, or name its admin socket with --admin',
      ];
    case 'EACCES':
    case 'EPERM':
      return [`user ${process.getuid?.()} may not open ${path}`, 'run this as root, or as the user of the agent'];
    case 'ENAMETOOLONG':
    case 'EINVAL':
      return [`${path} is too long for a socket`, 'the kernel allows 107 bytes'];
    default:
      return [
        `the agent at ${path} ended the connection: ${text}`,
        'too many may ask at a time: try again, or see the log of the agent',
      ];
  }
}
