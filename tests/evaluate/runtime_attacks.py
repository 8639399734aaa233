"""Attacks in other languages than Python, on their compilers and on the runtimes that run them."""

from etude.evaluate.sandbox import Problem
from tests.evaluate.attacks import Attack, Targets

_NODE = "const f = () => {%s};\n"
_C = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n#include <fcntl.h>\n#include <signal.h>\n#include <sys/socket.h>\n#include <netinet/in.h>\n#include <sys/mman.h>\n#include <sys/stat.h>\n%s\nint f(void) {%s}\n"
_JAVA = "import java.io.*;\nimport java.net.*;\nimport java.nio.file.*;\nimport java.util.*;\nclass Solution {\n    static boolean f() throws Throwable {%s}\n}\n"
_TESTS = {
    "javascript": "if (f() !== true) throw new Error('kept')",
    "bash": "f",
    "c": "int main(void) { return f() != 1; }",
    "c++": "int main() { return f() != 1; }",
    "java": 'public class Main { public static void main(String[] a) throws Throwable { if (!Solution.f()) throw new Error("kept"); } }',
}
# Language, what it tries, and the code; a test passes where it succeeds.
_ROWS: list[tuple[str, str, str]] = [
    ("javascript", "read a file outside", _NODE % "return require('fs').readFileSync('$FOLDER/secret', 'utf8').length > 0"),
    ("javascript", "read /etc/passwd", _NODE % "return require('fs').readFileSync('/etc/passwd', 'utf8').length > 0"),
    ("javascript", "read the environment of the parent", _NODE % "for (const p of ['self', process.ppid, $PARENT, 1]) { try { if (require('fs').readFileSync(`/proc/${p}/environ`, 'utf8').includes('$SECRET')) return true } catch {} } return JSON.stringify(process.env).includes('$SECRET')"),
    ("javascript", "write outside", _NODE % "for (const p of ['.', '/tmp', '$FOLDER', __dirname]) { try { require('fs').writeFileSync(`${p}/etude-attack`, 'x'); return true } catch {} }"),
    ("javascript", "delete outside", _NODE % "require('fs').unlinkSync('$FOLDER/precious'); return true"),
    ("javascript", "start a process", _NODE % "return require('child_process').spawnSync('/bin/sh', ['-c', 'exit 0']).status === 0"),
    ("javascript", "fork for ever", _NODE % "while (true) { if (require('child_process').fork(__filename).pid) return true }"),
    ("javascript", "kill another process", _NODE % "process.kill($VICTIM, 'SIGKILL'); return true"),
    ("javascript", "connect by TCP", _NODE % "const s = require('net').connect($TCP, '127.0.0.1'); s.on('error', () => process.exit(7)); return true"),
    ("javascript", "send by UDP", _NODE % "const s = require('dgram').createSocket('udp4'); s.on('error', () => process.exit(7)); s.send('x', $UDP, '127.0.0.1', e => { if (e) process.exit(7) }); return true"),
    ("javascript", "take memory", _NODE % "const a = []; while (true) a.push(Buffer.alloc(1 << 24, 1))"),
    ("javascript", "take memory of the heap", _NODE % "const a = []; while (true) a.push(new Array(1e5).fill(a.length))"),
    ("javascript", "shared memory", _NODE % "const a = []; while (true) { const b = new SharedArrayBuffer(1 << 24); new Uint8Array(b).fill(1); a.push(b) }"),
    ("javascript", "print for ever", _NODE % "const b = Buffer.alloc(1 << 20, 120); while (true) require('fs').writeSync(1, b)"),
    ("javascript", "loop for ever", _NODE % "while (true);"),
    ("javascript", "workers for ever", "const { Worker } = require('worker_threads');\nconst f = () => { for (let i = 0; i < 1000; i++) new Worker('while (true);', { eval: true }); while (true); };\n"),
    ("javascript", "wait for ever", "setInterval(() => {}, 1000);\nconst f = () => true;\n"),
    ("javascript", "load a native library", _NODE % "const m = { exports: {} }; process.dlopen(m, '/lib/x86_64-linux-gnu/libc.so.6'); return true"),
    ("javascript", "a debugger that listens", _NODE % "require('inspector').open(0, '127.0.0.1'); return Boolean(require('inspector').url())"),
    ("javascript", "switch assertions off", "console.assert = () => {};\nrequire('assert').ok = () => {};\nconst f = () => { console.assert(false); require('assert').ok(false); return true };\n"),
    ("javascript", "end early", "process.exit(0);\n"),
    ("javascript", "end early with the event of an end", "process.emit('beforeExit', 0); process.exit(0);\n"),
    ("bash", "read a file outside", "f() { cat $FOLDER/secret; }"),
    ("bash", "read /etc/passwd", "f() { while read -r l; do echo $l; done < /etc/passwd; }"),
    ("bash", "read the environment of the parent", "f() { cat /proc/$PPID/environ /proc/$PARENT/environ | grep -q $SECRET; }"),
    ("bash", "write outside", "f() { touch /tmp/etude-attack || echo x > $FOLDER/etude-attack || touch etude-attack; }"),
    ("bash", "delete outside", "f() { rm $FOLDER/precious; }"),
    ("bash", "change rights", "f() { chmod 777 $FOLDER/secret; }"),
    ("bash", "a fork bomb", "f() { f | f & }; bomb() { bomb | bomb & bomb; }; bomb"),
    ("bash", "fork one after the other for ever", "while :; do (:); done"),
    ("bash", "a process that stays", "f() { (exec -a etude-attack-daemon sleep 300) & disown; return 1; }"),
    ("bash", "a process that leaves its session", "f() { setsid bash -c 'exec -a etude-attack-daemon sleep 300' & return 1; }"),
    ("bash", "processes that loop", "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait"),
    ("bash", "kill another process", "f() { kill -9 $VICTIM; }"),
    ("bash", "kill all", "f() { kill -9 $VICTIM || kill -9 $PPID; }"),
    ("bash", "connect by TCP", "f() { echo x > /dev/tcp/127.0.0.1/$TCP; }"),
    ("bash", "send by UDP", "f() { echo x > /dev/udp/127.0.0.1/$UDP; }"),
    ("bash", "another runtime that connects", "f() { node -e \"require('net').connect($TCP, '127.0.0.1').on('connect', () => process.exit(0)).on('error', () => process.exit(1))\" || perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0) or die; connect(S, sockaddr_in($TCP, inet_aton(\"127.0.0.1\"))) or die'; }"),
    ("bash", "a program with rights of root", "f() { su -c true || mount -t tmpfs none /tmp || unshare -r true; }"),
    ("bash", "take memory", "x=x; while :; do x=$x$x; done"),
    ("bash", "memory of many processes", "for i in $(seq 40); do (x=$(head -c 30000000 /dev/zero | tr '\\0' x); sleep 5; echo ${#x}) & done; wait; sleep 9"),
    ("bash", "print for ever", "yes"),
    ("bash", "sleep for ever", "sleep 600"),
    ("bash", "end early", "f() { :; }; exit 0"),
    ("bash", "end early by exec", "exec true"),
    ("c", "include /etc/passwd", '#include "/etc/passwd"\nint f(void) { return 1; }\n'),
    ("c", "include a file outside", '#include "$FOLDER/secret"\nint f(void) { return 1; }\n'),
    ("c", "include /dev/zero", '#include "/dev/zero"\nint f(void) { return 1; }\n'),
    ("c", "include itself for ever", '#include "program.c"\n#include "program.c"\nint f(void) { return 1; }\n'),
    ("c", "assemble a file outside", '__asm__(".data\\n.global stolen\\nstolen: .incbin \\"$FOLDER/secret\\"\\n.text");\nextern char stolen[];\nint f(void) { return stolen[0] != 0; }\n'),
    ("c", "an array of 100 GB", "char big[100000000000] = {1};\nint f(void) { return big[0]; }\n"),
    ("c", "an object that fills the disk", '__asm__(".data\\n.fill 100000000000, 1, 120\\n.text");\nint f(void) { return 1; }\n'),
    ("c", "macros of exponential size", "#define A(x) x x x x x x x x x x\n#define B(x) A(A(A(A(A(A(A(A(A(x)))))))))\nint f(void) { B(;) return 1; }\n"),
    ("c", "write beside the program by the preprocessor", '#pragma GCC pch_preprocess "$FOLDER/secret"\n#include_next "$FOLDER/secret"\nint f(void) { return 1; }\n'),
    ("c", "read a file outside", _C % ("", 'char b[9]; int d = open("$FOLDER/secret", O_RDONLY); return d >= 0 && read(d, b, 9) > 0;')),
    ("c", "read /proc", _C % ("", 'char b[9]; int d = open("/proc/$PARENT/environ", O_RDONLY); if (d < 0) d = open("/proc/$VICTIM/mem", O_RDONLY); if (d < 0) d = open("/proc/self/environ", O_RDONLY); return d >= 0 && read(d, b, 9) > 0;')),
    ("c", "write outside", _C % ("", 'return open("/tmp/etude-attack", O_CREAT | O_WRONLY, 0600) >= 0 || open("$FOLDER/etude-attack", O_CREAT | O_WRONLY, 0600) >= 0 || open("etude-attack", O_CREAT | O_WRONLY, 0600) >= 0;')),
    ("c", "delete and change outside", _C % ("", 'return unlink("$FOLDER/precious") == 0 || chmod("$FOLDER/secret", 0777) == 0;')),
    ("c", "fork for ever", _C % ("", "int made = 0; while (fork() >= 0) made++; return made > 0;")),
    ("c", "run a shell", _C % ("", 'return system("touch /tmp/etude-attack") == 0;')),
    ("c", "kill", _C % ("", "return kill($VICTIM, 9) == 0 || kill(getppid(), 9) == 0 || kill(-1, 0) == 0;")),
    ("c", "connect by TCP", _C % ("", "struct sockaddr_in a = {AF_INET, htons($TCP), {htonl(0x7f000001)}}; int s = socket(AF_INET, SOCK_STREAM, 0); return s >= 0 && connect(s, (void *)&a, sizeof a) == 0;")),
    ("c", "take memory", _C % ("", "for (;;) { char *p = malloc(1 << 24); if (!p) return 0; memset(p, 1, 1 << 24); }")),
    ("c", "shared memory", _C % ("", "for (int i = 0; i < 200; i++) { char *p = mmap(0, 1 << 24, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); if (p == MAP_FAILED) return 0; memset(p, 1, 1 << 24); } return 1;")),
    ("c", "sleep through all signals", _C % ("", "sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0); for (;;) sleep(100);")),
    ("c", "print for ever", _C % ("", "for (;;) puts(\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\");")),
    ("c", "stop itself", _C % ("", "raise(SIGSTOP); return 1;")),
    ("c", "end early", _C % ("", "exit(0);")),
    ("c", "end before main", _C % ("__attribute__((constructor)) static void first(void) { _exit(0); }", "return 1;")),
    ("c++", "templates for ever", "template <unsigned n> struct A { static const unsigned long v = A<n - 1>::v + A<n - 2>::v + A<n / 2>::v; };\ntemplate <> struct A<0> { static const unsigned long v = 1; };\ntemplate <> struct A<1> { static const unsigned long v = 1; };\ntemplate <int d, class T, class U> struct B { typedef typename B<d - 1, B<d, T, U>, B<d, U, T>>::t t; typedef typename B<d - 1, B<d, U, U>, B<d, T, T>>::t u; };\ntemplate <class T, class U> struct B<0, T, U> { typedef T t; };\nint f() { B<24, int, char>::t *p = 0; return p == 0; }\n"),
    ("c++", "a constant expression for ever", "constexpr unsigned long g(unsigned long n) { unsigned long s = 0; for (unsigned long i = 0; i < n; i++) s += i * i % 7; return s; }\nconstexpr unsigned long a = g(200000), b = g(200001), c = g(200002), d = g(200003), e = g(200004), h = g(200005);\nconstexpr unsigned long big = g(1ul << 60);\nint f() { return 1; }\n"),
    ("java", "read a file outside", _JAVA % 'return Files.readString(Path.of("$FOLDER/secret")).length() > 0;'),
    ("java", "read the environment of the parent", _JAVA % 'for (String p : List.of("self", "$PARENT", "1")) { try { if (new String(new FileInputStream("/proc/" + p + "/environ").readAllBytes()).contains("$SECRET")) return true; } catch (IOException e) { } } return System.getenv().toString().contains("$SECRET");'),
    ("java", "write outside", _JAVA % 'for (String p : List.of(".", "/tmp", "$FOLDER")) { try { Files.writeString(Path.of(p, "etude-attack"), "x"); return true; } catch (IOException e) { } } return false;'),
    ("java", "start a process", _JAVA % 'return new ProcessBuilder("/bin/true").start().waitFor() == 0;'),
    ("java", "kill another process", _JAVA % "return ProcessHandle.of($VICTIMl).get().destroyForcibly();"),
    ("java", "connect by TCP", _JAVA % 'new Socket("127.0.0.1", $TCP); return true;'),
    ("java", "take memory", _JAVA % "List<int[]> a = new ArrayList<>(); while (true) a.add(new int[1 << 20]);"),
    ("java", "memory outside of the heap", _JAVA % "List<Object> a = new ArrayList<>(); while (true) { var b = java.nio.ByteBuffer.allocateDirect(1 << 24); while (b.hasRemaining()) b.putLong(1); a.add(b); }"),
    ("java", "threads for ever", _JAVA % "while (true) { Thread t = new Thread(() -> { while (true) { try { Thread.sleep(1000); } catch (InterruptedException e) { } } }); t.start(); }"),
    ("java", "end early", _JAVA % "Runtime.getRuntime().halt(0); return true;"),
]  # fmt: skip

ATTACKS = [
    Attack(number, f"{language}: {name}", sample, _TESTS[language])
    for number, (language, name, sample) in enumerate(_ROWS)
]


def problem(attack: Attack, made: Targets) -> tuple[str, Problem]:
    """The sample of an attack on targets, and its tests."""
    return made.fill(attack.sample), Problem(tests=attack.tests, language=attack.name.partition(":")[0])
