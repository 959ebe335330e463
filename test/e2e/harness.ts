import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runProgram } from './run-program.ts';
import { eventually } from './wait.ts';

const UP_TIMEOUT_MS = 180_000;
const IMAGE_TIMEOUT_MS = 300_000;
const END_TIMEOUT_MS = 10_000;

export type Component = 'apiserver' | 'kubelet' | 'containerd';

interface Names {
  readonly state: string;
  readonly program: string;
  readonly kubeconfig: string;
  readonly netns: string;
  readonly nodeAddress: string;
}

/** A single real node on this machine, made by the scripts of a directory beside the checkout. Everything needs root. */
export class Harness {
  readonly directory: string;
  readonly names: Names;

  private constructor(directory: string, names: Names) {
    this.directory = directory;
    this.names = names;
  }

  /** The harness of a directory, or the reason why it cannot be used. */
  static async find(directory: string): Promise<Harness | string> {
    if (!existsSync(join(directory, 'env.sh'))) return `there is no harness in ${directory}`;
    if (process.geteuid?.() !== 0) return `the harness in ${directory} needs root`;
    const print = 'printf "%s\\n" "$STATE" "$BIN" "$KUBECONFIG" "$NETNS" "$NODE_IP"';
    const text = await runProgram(['bash', '-c', `. "$1/env.sh"; ${print}`, 'bash', directory]);
    const [state = '', program = '', kubeconfig = '', netns = '', nodeAddress = ''] = text.split('\n');
    if (!existsSync(program)) return `the harness is not built: run ${join(directory, 'build.sh')}`;
    return new Harness(directory, { state, program, kubeconfig, netns, nodeAddress });
  }

  get isUp(): boolean {
    return existsSync(join(this.names.state, 'pids'));
  }

  async up(): Promise<void> {
    await this.#script('up.sh', [], UP_TIMEOUT_MS);
  }

  async down(): Promise<void> {
    await this.#script('down.sh', [], UP_TIMEOUT_MS);
  }

  /** Makes the image `localhost/<name>` of what is in `directory` and of `programs` of this machine, and gives it to the node. */
  async image(name: string, directory: string, programs: readonly string[], entryPoint: readonly string[]): Promise<string> {
    const chosen = programs.flatMap((program) => ['-b', program]);
    await this.#script('image.sh', [name, directory, ...chosen, '--', ...entryPoint], IMAGE_TIMEOUT_MS);
    return `localhost/${name}`;
  }

  /** With every name that the runtime has given to the same image. */
  async removeImage(image: string): Promise<void> {
    const images = (await this.#ctr('images', 'ls')).split('\n').map((line) => line.split(/\s+/));
    const digest = images.find(([name]) => name === image)?.[2];
    const names = images.filter((columns) => columns[2] === digest).map(([name = '']) => name);
    if (digest !== undefined) await this.#ctr('images', 'rm', '--sync', ...names);
  }

  /** Process IDs of a pod's containers that run `program`. They are processes of this machine. */
  processesOf(podUid: string, program: string): readonly number[] {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    return pids
      .filter((pid) => textOf(`/proc/${pid}/cgroup`).includes(podUid) && textOf(`/proc/${pid}/cmdline`).includes(program))
      .map(Number);
  }

  get staticPods(): string {
    return join(this.names.state, 'manifests');
  }

  pid(component: Component): number {
    return Number(readFileSync(this.#pidFile(component), 'utf8'));
  }

  /** Ends a component; the answer starts it again as it was. An outage is `SIGKILL`. */
  async stop(component: Component, signal: NodeJS.Signals): Promise<() => Promise<void>> {
    const pid = this.pid(component);
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    if (!argv.some((argument) => argument.startsWith(this.names.state)))
      throw new Error(`process ${pid} is not the harness's ${component}`);
    process.kill(pid, signal);
    await eventually(`${component} ends`, END_TIMEOUT_MS, async () => (hasEnded(pid) ? true : undefined));
    return async () => this.#start(component, argv);
  }

  #ctr(...args: readonly string[]): Promise<string> {
    return runProgram(['ctr', '-a', join(this.names.state, 'containerd.sock'), '-n', 'k8s.io', ...args]);
  }

  #start(component: Component, argv: readonly string[]): void {
    const log = openSync(join(this.names.state, 'log', `${component}.log`), 'a');
    const child = spawn('nsenter', [`--net=/run/netns/${this.names.netns}`, ...argv], {
      detached: true,
      stdio: ['ignore', log, log],
    });
    child.unref();
    closeSync(log);
    writeFileSync(this.#pidFile(component), `${child.pid}\n`);
  }

  #pidFile(component: Component): string {
    return join(this.names.state, 'pids', component);
  }

  #script(name: string, args: readonly string[], timeoutMs: number): Promise<string> {
    return runProgram([join(this.directory, name), ...args], { timeoutMs });
  }
}

/** A zombie has ended too. */
function hasEnded(pid: number): boolean {
  const stat = textOf(`/proc/${pid}/stat`);
  return stat === '' || /\) [ZX] /.test(stat);
}

/** Empty when the process has ended. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
