import test from 'ava';
import { parseConfig } from '../../src/config/load.ts';
import { problemsOf } from './refusals.ts';

const BASE = 'trustDomain: example.org\nkubernetes: { kubeconfig: /k }\n';
const ISSUER = 'namespace: signet-system, issuer: { name: signet }';

function under(section: string, more = '', base = BASE): string {
  return `${base}authority: { type: cert-manager, certManager: { ${section} }${more} }\n`;
}

function refuses(title: string, yaml: string, path: string, found: string, allowed: string): void {
  test(title, (t) => t.deepEqual(problemsOf(yaml), [{ path, found, allowed }]));
}

test('a namespace, an issuer and its roots are enough', (t) => {
  const { authority } = parseConfig(under(`${ISSUER}, rootsConfigMap: { name: roots }`), 'f', {});
  t.is(authority.tier, 'intermediate');
  t.deepEqual(authority.certManager, {
    namespace: 'signet-system',
    issuer: { name: 'signet', kind: 'Issuer', group: 'cert-manager.io' },
    roots: [],
    rootsConfigMap: { namespace: 'signet-system', name: 'roots', key: 'ca.crt' },
  });
});

test('an external issuer, and roots in files', (t) => {
  const { authority } = parseConfig(under('namespace: n, issuer: { name: i, kind: StepClusterIssuer, group: certmanager.step.sm }, roots: [/r.pem]'), 'f', {});
  t.like(authority.certManager, { issuer: { kind: 'StepClusterIssuer', group: 'certmanager.step.sm' }, roots: ['/r.pem'], rootsConfigMap: undefined });
});

refuses('the type needs its section', `${BASE}authority: { type: cert-manager }`, 'authority.certManager', 'nothing', 'the issuer and its roots: namespace, issuer, and roots or rootsConfigMap');
refuses('the section needs its type', `${BASE}authority: { certManager: { ${ISSUER}, roots: [/r] } }`, 'authority.certManager', '{"namespace":"signet-system","issuer":{"name":"signet"},"roo…', 'nothing, unless authority.type is cert-manager');
refuses('nothing is believed that nobody has named', under(ISSUER), 'authority.certManager.roots', 'nothing', 'the files with the trust anchors, or authority.certManager.rootsConfigMap');
refuses('without pods there must be another way to the API server', under(`${ISSUER}, roots: [/r]`, '', 'trustDomain: example.org\n'), 'kubernetes.kubeconfig', 'nothing', 'the way to the API server (with authority.type: cert-manager), unless attestation.kubernetes.enabled is true');
refuses('per-svid needs transit, since cert-manager signs no tokens', under(`${ISSUER}, roots: [/r]`, ', tier: per-svid'), 'jwt.signer', 'nothing', 'transit, with authority.tier: per-svid: no key that signs is on the node then');
refuses('a kind is no path', under('namespace: n, issuer: { name: i, kind: ../x }, roots: [/r]'), 'authority.certManager.issuer.kind', '"../x"', 'a kind such as Issuer or ClusterIssuer');
refuses('a key of a ConfigMap is no path', under(`${ISSUER}, rootsConfigMap: { name: r, key: a/b }`), 'authority.certManager.rootsConfigMap.key', '"a/b"', 'a key of a ConfigMap such as ca.crt');

test('per-svid with tokens of a transit engine', (t) => {
  const vault = ', tier: per-svid, vault: { address: "https://v", auth: { method: token, tokenFile: /t } }';
  const { authority, jwt } = parseConfig(`${under(`${ISSUER}, roots: [/r]`, vault)}jwt: { signer: transit, transit: { key: k } }\n`, 'f', {});
  t.deepEqual([authority.tier, jwt.signer], ['per-svid', 'transit']);
});
