import { copyFile, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasVenv, type Toolchain } from '../support/toolchains.ts';

/** Runs one command of a build; rejects unless it exits with 0. */
export type BuildStep = (command: string, args: readonly string[], env?: Readonly<Record<string, string>>) => Promise<void>;

/** How to start a built program: argv before the contract's own arguments. */
export type Argv = readonly [string, ...string[]];

/** A published client and the small program that drives it. */
export interface Row {
  /** The client's name, as it stands in test titles. */
  readonly name: string;
  /** Its folder in test/interop, and its name in the cache. */
  readonly folder: string;
  readonly toolchain: Toolchain;
  /** Builds the program from `source` (steps run there) into `target`. */
  readonly build: (source: string, target: string, step: BuildStep) => Promise<void>;
  /** The program in `target`; `source` for what runs from its text. */
  readonly argv: (source: string, target: string) => Argv;
  /** False for a client that drops the hint of an SVID. */
  readonly keepsHint: boolean;
}

// No symbols: the linker's work is a good part of a Go build.
const GO_BUILD = ['build', '-mod=readonly', '-buildvcs=false', '-trimpath', '-ldflags=-s -w'];

/** The rows that speak the common contract of README.md. */
export const LANGUAGE_ROWS: readonly Row[] = [
  {
    name: 'go-spiffe',
    folder: 'go',
    toolchain: 'go',
    keepsHint: true,
    build: (_source, target, step) => step('go', [...GO_BUILD, '-o', join(target, 'interop'), '.'], { CGO_ENABLED: '0' }),
    argv: (_source, target) => [join(target, 'interop')],
  },
  {
    name: 'java-spiffe',
    folder: 'java',
    toolchain: 'java',
    keepsHint: true,
    build: buildJava,
    // Small programs: the first compiler alone and the simplest collector start fastest.
    argv: (_source, target) => [
      'java', '-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC',
      '-cp', `${join(target, 'classes')}:${join(target, 'lib', '*')}`, 'Interop',
    ],
  },
  {
    name: 'Python spiffe',
    folder: 'python',
    toolchain: 'python',
    keepsHint: false,
    build: buildPython,
    argv: (source, target) => [join(target, 'bin', 'python'), '-B', join(source, 'interop.py')],
  },
  {
    name: 'Rust spiffe',
    folder: 'rust',
    toolchain: 'rust',
    keepsHint: true,
    build: buildRust,
    argv: (_source, target) => [join(target, 'interop')],
  },
];

/** SPIRE's own command line, which has its own arguments. */
export const SPIRE_AGENT_CLI: Row = {
  name: 'spire-agent command line',
  folder: 'spire-agent-cli',
  toolchain: 'go',
  keepsHint: true,
  build: (_source, target, step) =>
    step('go', [...GO_BUILD, '-o', join(target, 'spire-agent'), 'github.com/spiffe/spire/cmd/spire-agent'], {
      CGO_ENABLED: '0',
    }),
  argv: (_source, target) => [join(target, 'spire-agent')],
};

async function buildJava(source: string, target: string, step: BuildStep): Promise<void> {
  const lib = join(target, 'lib');
  await step('mvn', ['-q', '-B', 'dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${lib}`]);
  const sources = (await readdir(source)).filter((file) => file.endsWith('.java'));
  await step('javac', ['--release', '17', '-cp', join(lib, '*'), '-d', join(target, 'classes'), ...sources]);
}

async function buildPython(_source: string, target: string, step: BuildStep): Promise<void> {
  // requirements.txt names the whole closure, so nothing else may be resolved.
  const install = ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--no-deps', '-r', 'requirements.txt'];
  if (hasVenv()) {
    await step('python3', ['-m', 'venv', target]);
    await step(join(target, 'bin', 'python'), install);
    return;
  }
  const packages = join(target, 'packages');
  await step('python3', [...install, '--target', packages]);
  await mkdir(join(target, 'bin'));
  const launcher = join(target, 'bin', 'python');
  await writeFile(launcher, `#!/bin/sh\nPYTHONPATH='${packages}' exec python3 "$@"\n`, { mode: 0o755 });
}

async function buildRust(_source: string, target: string, step: BuildStep): Promise<void> {
  const scratch = join(target, 'scratch');
  await step('cargo', ['build', '--locked', '--quiet'], { CARGO_TARGET_DIR: scratch });
  await copyFile(join(scratch, 'debug', 'interop'), join(target, 'interop'));
  await rm(scratch, { recursive: true });
}
