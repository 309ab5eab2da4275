"""lab.py swap: from Envoy to the binary under test and back, by the annotation of deploy/istio. Each line says PASS or FAIL. Takes `up --stock --swap`."""
import json, os, string, subprocess, sys, time

from demo import RESULT, check

NS = 'swap'
CHOSEN = {'inject.istio.io/templates': 'sidecar,outrigger'}


def apply(L, server, client):
    names = {'NS': NS, 'PYTHON': L.need('LAB_PYTHON'), 'APP': os.path.join(L.HERE, 'app.py')}
    annotations = {'ANNOTATIONS_SERVER': json.dumps(server), 'ANNOTATIONS_CLIENT': json.dumps(client)}
    text = string.Template(open(f'{L.HERE}/demo.yaml').read()).substitute(names, **annotations)
    subprocess.run(L.inns(L.KUBECTL, 'apply', '-f', '-'), input=text, text=True, env=L.env(), capture_output=True, check=True)


def settled(L):
    """The pods once each Deployment's rollout is over."""
    for name in ('client', 'server-v1', 'server-v2', 'outsider'):
        L.kubectl('rollout', 'status', '-n', NS, f'deployment/{name}', '--timeout=90s', quiet=True)
    end = time.time() + 30
    while time.time() < end and len(L.pods(NS)) != 4:
        time.sleep(0.3)
    return {p['metadata']['labels'].get('version', p['metadata']['labels']['app']): p['metadata']['name'] for p in L.pods(NS)}


def proxy_of(L, pod):
    info = json.loads(L.pexec(NS, pod, 'curl', '-s', 'localhost:15000/server_info', c='istio-proxy'))
    return 'envoy' if info['version'].endswith('/BoringSSL') else 'ours'


def answers(L, pods):
    """The statuses of calls from the client to the servers."""
    get = lambda: json.loads(L.pexec(NS, pods['client'], L.need('LAB_PYTHON'), '-B', os.path.join(L.HERE, 'app.py'), 'get', 'http://server/hello', c='app'))
    return [get()['status'] for _ in range(10)]


def run(L, o):
    steps = [('before', {}, {}, {'client': 'envoy', 'v1': 'envoy'}), ('a canary', {}, CHOSEN, {'client': 'ours', 'v1': 'envoy'}),
             ('everywhere', CHOSEN, CHOSEN, {'client': 'ours', 'v1': 'ours'}), ('the way back', {}, {}, {'client': 'envoy', 'v1': 'envoy'})]
    for name, server, client, expected in steps:
        apply(L, server, client)
        pods = settled(L)
        found = {who: proxy_of(L, pods[who]) for who in expected}
        check(f'swap, {name}: the proxies', found == expected, found)
        statuses = answers(L, pods)
        check(f'swap, {name}: the calls', statuses == [200] * len(statuses), statuses)
    print(f'{sum(RESULT)} of {len(RESULT)} passed')
    sys.exit(0 if all(RESULT) else 1)
