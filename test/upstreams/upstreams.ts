/**
 * The whole agent, as a process, under real CAs: `node test/upstreams/upstreams.ts [STEP ...]`; README.md says what it needs.
 *
 * Exit code: 0 when nothing failed, 1 else. What is missing is said, and skipped by name.
 */
import { Report } from './report.ts';
import type { Step } from './step.ts';
import { certManagerClients } from './steps/cert-manager-clients.ts';
import { certManagerFaults } from './steps/cert-manager-faults.ts';
import { certManagerOutage } from './steps/cert-manager-outage.ts';
import { certManagerRotation } from './steps/cert-manager-rotation.ts';
import { clients } from './steps/clients.ts';
import { clientsSpire } from './steps/spire-clients.ts';
import { faults } from './steps/faults.ts';
import { faultsSpire } from './steps/spire-faults.ts';
import { outage } from './steps/outage.ts';
import { outageSpire } from './steps/spire-outage.ts';
import { rotationEmbedded } from './steps/rotation-embedded.ts';
import { rotationFiles } from './steps/rotation-files.ts';
import { rotationVault } from './steps/rotation-vault.ts';
import { sideBySide } from './steps/side-by-side.ts';
import { clientsStepCa, faultsStepCa, outageStepCa, rotationStepCa } from './steps/step-ca.ts';

const STEPS: Readonly<Record<string, Step>> = {
  outage,
  'rotation-files': rotationFiles,
  'rotation-vault': rotationVault,
  'rotation-embedded': rotationEmbedded,
  clients,
  faults,
  'step-ca-outage': outageStepCa,
  'step-ca-rotation': rotationStepCa,
  'step-ca-clients': clientsStepCa,
  'step-ca-faults': faultsStepCa,
  'spire-outage': outageSpire,
  'side-by-side': sideBySide,
  'spire-clients': clientsSpire,
  'spire-faults': faultsSpire,
  'cert-manager-outage': certManagerOutage,
  'cert-manager-rotation': certManagerRotation,
  'cert-manager-clients': certManagerClients,
  'cert-manager-faults': certManagerFaults,
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !(name in STEPS));
if (unknown.length > 0) throw new Error(`no such step: ${unknown.join(', ')}; there are ${Object.keys(STEPS).join(', ')}`);
// What was started is ended all the same.
let interrupted = false;
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => (interrupted = true));

const report = new Report();
for (const [name, step] of Object.entries(STEPS)) if (chosen.length === 0 || chosen.includes(name)) await runStep(step);
report.print();
process.exit(report.failed > 0 ? 1 : 0);

async function runStep(step: Step): Promise<void> {
  report.begin(step.title);
  const missing = interrupted ? 'interrupted' : step.missing();
  if (missing !== undefined) return report.skip(step.title, missing);
  try {
    await using started = new AsyncDisposableStack();
    await step.run(report, started);
  } catch (error) {
    // What is not inside a check was needed for all that follows in its step.
    await report.check(`${step.title}: to its end`, () => Promise.reject(error));
  }
}
