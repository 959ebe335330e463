/**
 * The whole agent in a real Kubernetes. `node test/e2e/e2e.ts [STEP ...]`; README.md says what it needs.
 *
 * Exit code: 0 when nothing failed, 1 else. What is missing is said, and skipped by name.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Deployment, isBuilt } from './deployment.ts';
import { Harness } from './harness.ts';
import { buildImages, ROOT, type Images } from './images.ts';
import { Kubectl } from './kubectl.ts';
import { Report } from './report.ts';
import { runProgram } from './run-program.ts';
import type { Step } from './step.ts';
import { caRotation } from './steps/ca-rotation.ts';
import { identities } from './steps/identities.ts';
import { kinds } from './steps/kinds.ts';
import { languages } from './steps/languages.ts';
import { misuse } from './steps/misuse.ts';
import { outage } from './steps/outage.ts';
import { rules } from './steps/rules.ts';
import { scale } from './steps/scale.ts';
import { starts } from './steps/starts.ts';
import { twoAgents } from './steps/two-agents.ts';
import { upgrade } from './steps/upgrade.ts';
import { BLUE, RED, SYSTEM, World } from './world.ts';

/** In this order: what stops parts of the node comes last, and `scale` needs nothing of the others. */
const STEPS: Readonly<Record<string, Step>> = {
  identities,
  starts,
  kinds,
  misuse,
  languages,
  'two-agents': twoAgents,
  rules,
  'ca-rotation': caRotation,
  upgrade,
  outage,
  scale,
};
/** The watchers of the first step are asked in most others. */
const ALWAYS = 'identities';
const DEFAULT_HARNESS = join(ROOT, '../shared/k8s');

interface Cluster {
  readonly kubectl: Kubectl;
  readonly harness: Harness | undefined;
  /** Ends what was started for the tests. */
  close(): Promise<void>;
}

const report = new Report();
const chosen = process.argv.slice(2);
// What was made is removed all the same.
let interrupted = false;
process.once('SIGINT', () => (interrupted = true));
process.once('SIGTERM', () => (interrupted = true));
process.exitCode = await main();

async function main(): Promise<number> {
  const unknown = chosen.filter((name) => !Object.hasOwn(STEPS, name));
  if (unknown.length > 0) return refuse(`no such step: ${unknown.join(', ')}; there are ${Object.keys(STEPS).join(', ')}`);
  const cluster = await findCluster();
  if (typeof cluster === 'string') return skipAll(cluster);
  try {
    const images = await findImages(cluster.harness);
    return typeof images === 'string' ? skipAll(images) : await runIn(cluster, images);
  } finally {
    await cluster.close();
  }
}

function refuse(reason: string): number {
  console.error(`e2e: ${reason}`);
  return 1;
}

function skipAll(reason: string): number {
  report.begin('end-to-end');
  for (const step of Object.values(STEPS)) report.skip(step.title, reason);
  report.print();
  return 0;
}

/** KUBECONFIG decides; else the harness, which is started when it is not up and then ended again. */
async function findCluster(): Promise<Cluster | string> {
  const bin = mkdtempSync(join(tmpdir(), 'signet-e2e-bin-'));
  const close = async (): Promise<void> => rmSync(bin, { recursive: true, force: true });
  const { KUBECONFIG, SIGNET_HARNESS, SIGNET_KUBECTL } = process.env;
  const harness = await Harness.find(SIGNET_HARNESS ?? DEFAULT_HARNESS);
  const isOther = typeof harness === 'string' || KUBECONFIG !== harness.names.kubeconfig;
  if (KUBECONFIG !== undefined && KUBECONFIG !== '' && isOther)
    return { kubectl: new Kubectl(SIGNET_KUBECTL ?? 'kubectl', KUBECONFIG), harness: undefined, close };
  if (typeof harness === 'string') {
    await close();
    return `no cluster: KUBECONFIG is not set, and ${harness}`;
  }
  // The harness has all of Kubernetes in one program, which asks by which name it was called.
  const kubectl = join(bin, 'kubectl');
  symlinkSync(harness.names.program, kubectl);
  const wasUp = harness.isUp;
  if (!wasUp) await harness.up();
  const end = async (): Promise<void> => {
    await close();
    if (!wasUp) await harness.down();
  };
  return { kubectl: new Kubectl(kubectl, harness.names.kubeconfig), harness, close: end };
}

async function findImages(harness: Harness | undefined): Promise<Images | string> {
  const { SIGNET_E2E_IMAGE: agent, SIGNET_E2E_WORKLOAD_IMAGE: workload } = process.env;
  if (agent !== undefined && workload !== undefined) return { agent, workload };
  if (harness === undefined)
    return 'this cluster needs SIGNET_E2E_IMAGE and SIGNET_E2E_WORKLOAD_IMAGE, the names of images that it can pull';
  if (!isBuilt()) return 'dist/ is not there: run make build';
  if (!(await hasGo())) return 'the workload program needs go on PATH';
  console.log('e2e: building the images ...');
  return buildImages(harness);
}

async function hasGo(): Promise<boolean> {
  return runProgram(['go', 'version']).then(
    () => true,
    () => false,
  );
}

async function runIn({ kubectl, harness }: Cluster, images: Images): Promise<number> {
  const node = (await kubectl.run(['get', 'nodes', '-o', 'jsonpath={.items[0].metadata.name}'])).trim();
  const deployment = new Deployment(kubectl, images, node);
  const obstacle = await deployment.obstacle();
  if (obstacle !== undefined) return refuse(obstacle);
  const world = new World(kubectl, images, harness, node);
  try {
    report.begin('deployment');
    const isDeployed = await report.check("the project's manifests are accepted, and the agent becomes ready", async () => {
      await deployment.apply();
      await deployment.rolledOut();
    });
    if (isDeployed) await runSteps(world);
    else await collect(world, 'deployment');
  } finally {
    report.begin('cleaning up');
    await report.check('nothing is left behind', async () => {
      await deployment.remove();
      if (harness !== undefined && process.env['SIGNET_E2E_IMAGE'] === undefined)
        for (const image of Object.values(images)) await harness.removeImage(image);
    });
  }
  report.print();
  return report.failed > 0 ? 1 : 0;
}

async function runSteps(world: World): Promise<void> {
  await printFacts(world);
  for (const [name, step] of Object.entries(STEPS)) {
    if (interrupted) return report.skip(step.title, 'interrupted');
    if (chosen.length > 0 && name !== ALWAYS && !chosen.includes(name)) continue;
    report.begin(step.title);
    const before = report.length;
    // What is not inside a check was needed for all that follows in its step.
    const failure = await step.run(world, report).then(
      () => undefined,
      (error: unknown) => error,
    );
    if (failure !== undefined) await report.check(`${step.title}: to its end`, () => Promise.reject(failure));
    if (report.failedSince(before)) await collect(world, name);
  }
}

async function printFacts(world: World): Promise<void> {
  interface Node {
    readonly status: { readonly nodeInfo: Readonly<Record<string, string>> };
  }
  const { nodeInfo } = (await world.kubectl.json<Node>(['get', 'node', world.node])).status;
  const [lines = []] = await world.runToEnd({ namespace: RED, name: 'facts', args: ['facts'] });
  const facts = lines.find((line) => line.event === 'facts');
  report.note(
    `kernel ${nodeInfo['kernelVersion']}, kubelet ${nodeInfo['kubeletVersion']}, ` +
      `${nodeInfo['containerRuntimeVersion']}, ${nodeInfo['osImage']}`,
  );
  report.note(`cgroups: ${String(facts?.['cgroup'])}; a pod's, as it sees them itself:\n${String(facts?.['text']).trim()}`);
}

/** What people ask for first when something failed. Never a reason to stop. */
async function collect(world: World, step: string): Promise<void> {
  const directory = join(ROOT, '.cache/e2e', step);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const save = async (file: string, args: readonly string[]): Promise<void> => {
    const text = await world.kubectl.run(args).catch((error: unknown) => String(error));
    writeFileSync(join(directory, file), text);
  };
  for (const namespace of [SYSTEM, RED, BLUE]) {
    await save(`${namespace}-describe.txt`, ['describe', 'pods', '-n', namespace]);
    await save(`${namespace}-events.txt`, ['get', 'events', '-n', namespace, '--sort-by=.lastTimestamp']);
  }
  const pods = await world.agents().catch(() => []);
  for (const { metadata } of pods) {
    await save(`${metadata.name}.log`, ['logs', '-n', SYSTEM, metadata.name, '--tail=-1']);
    await save(`${metadata.name}-previous.log`, ['logs', '-n', SYSTEM, metadata.name, '--tail=-1', '--previous']);
  }
  if (existsSync(directory)) report.note(`logs of the failure: ${directory}`);
}
