/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eat: a process that eats memory, so that the kernel's OOM killer has a reason.
 *
 *	eat [options] MIB [further arguments are ignored, they fill the command line]
 *
 * On stdout, one line each, whatever dies later:
 *	child PID	a process was made; the pid as its parent sees it
 *	start PID TID	the process that eats is set up; the ids as it sees them itself
 *	ate		all of it is touched
 *
 * Every process dies with its parent and after LIFE seconds, so that none stays behind.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CGROUPS 4
#define MPOL_BIND 2

static const char usage[] = "usage: eat [options] MIB [ignored ...]\n"
			    "  -n NAME     process name, any bytes        -T NAME   name of the second thread\n"
			    "  -a ADJ      oom_score_adj                  -u UID    user and group id\n"
			    "  -g DIR      cgroup to enter, repeatable    -l LIFE   seconds until SIGALRM (120)\n"
			    "  -G          wait for a byte on stdin       -w MS     wait before eating\n"
			    "  -K PID      SIGKILL this process first     -H        hold: pause after eating\n"
			    "  -t          eat in a second thread         -z        same, and the leader exits first\n"
			    "  -m          share the memory with a CLONE_VM child\n"
			    "  -f FILE     write a file                   -s        shared anonymous memory\n"
			    "  -N NODE     bind the memory to a NUMA node\n"
			    "  -k KIB      size of a chunk (1024)         -p US     pause after each chunk\n"
			    "  -c COUNT    eat in COUNT children          -j JOBS   so many at once (1)\n"
			    "  -P          eat as pid 1 of a PID namespace; -PP as the child of its pid 1\n"
			    "  -B          do not eat but update a BPF map, over and over\n";

static const char *comm, *thread_comm = "eat-thread", *adj, *file;
static const char *cgroups[MAX_CGROUPS];
static int n_cgroups, gate, hold, second_thread, leader_exits, share_mm, shared, namespaces, update_map;
static int node = -1, children, jobs = 1;
static long uid = -1, wait_ms, pause_us, mib, chunk_kib = 1024, life = 120;
static pid_t kill_first;

static void die(const char *what)
{
	fprintf(stderr, "eat: %s: %s\n", what, strerror(errno));
	_exit(3);
}

static void say(const char *format, long a, long b)
{
	char line[64];
	int length = snprintf(line, sizeof(line), format, a, b);

	if (write(STDOUT_FILENO, line, length) != length)
		die("stdout");
}

static void put(const char *path, const char *text)
{
	int fd = -1, tries;

	/* Where others have filled the cgroup, the kernel may refuse instead of killing. */
	for (tries = 0; tries < 5000; tries++) {
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, text, strlen(text)) >= 0)
			break;
		if (errno != ENOMEM)
			die(path);
		if (fd >= 0)
			close(fd);
		fd = -1;
		usleep(1000);
	}
	if (fd < 0)
		die(path);
	close(fd);
}

/* Nobody outlives the tests: setuid() and fork() drop both, so every process calls this again. */
static void mortal(void)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		die("prctl");
	alarm(life);
}

static void settle(void)
{
	char procs[8192];
	int i;

	for (i = 0; i < n_cgroups; i++) {
		snprintf(procs, sizeof(procs), "%s/cgroup.procs", cgroups[i]);
		put(procs, "0");
	}
	if (adj)
		put("/proc/self/oom_score_adj", adj);
	if (uid >= 0 && (setgroups(0, NULL) || setgid(uid) || setuid(uid)))
		die("setuid");
	if (comm && prctl(PR_SET_NAME, comm))
		die("prctl");
	mortal();
}

static void breathe(size_t done)
{
	if (pause_us && done % (chunk_kib << 10) == 0)
		usleep(pause_us);
}

static void eat_file(size_t size)
{
	static char page[4096];
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t done;

	if (fd < 0)
		die(file);
	for (done = 0; done < size; done += sizeof(page)) {
		if (write(fd, page, sizeof(page)) != sizeof(page))
			die(file);
		breathe(done);
	}
}

static void eat_memory(size_t size)
{
	int kind = shared ? MAP_SHARED : MAP_PRIVATE;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t done;

	if (p == MAP_FAILED)
		die("mmap");
	madvise(p, size, MADV_NOHUGEPAGE); /* fails without THP, where it is not needed */
	if (node >= 0) {
		unsigned long mask = 1UL << node;

		if (syscall(SYS_mbind, p, size, MPOL_BIND, &mask, 8 * sizeof(mask), 0))
			die("mbind");
	}
	for (done = 0; done < size; done += 4096) {
		((volatile char *)p)[done] = 1;
		breathe(done);
	}
}

/* What other users of BPF do now and then: while a map is updated, kprobe programs do not run on that CPU. */
static void busy_with_bpf(void)
{
	static char value[32768];
	int key = 0;
	union bpf_attr attr;
	int fd;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_HASH;
	attr.key_size = sizeof(key);
	attr.value_size = sizeof(value);
	attr.max_entries = 1;
	fd = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
	if (fd < 0)
		die("bpf");
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = fd;
	attr.key = (unsigned long)&key;
	attr.value = (unsigned long)value;
	for (;;)
		if (syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof(attr)))
			die("bpf");
}

static void *eat(void *name)
{
	size_t size = (size_t)mib << 20;
	char byte;

	if (name && prctl(PR_SET_NAME, name))
		die("prctl");
	say("start %ld %ld\n", getpid(), syscall(SYS_gettid));
	if (gate && read(STDIN_FILENO, &byte, 1) != 1)
		_exit(0);
	if (leader_exits)
		usleep(100000); /* it is on its way */
	if (wait_ms)
		usleep(wait_ms * 1000);
	if (kill_first && kill(kill_first, SIGKILL))
		die("kill");
	if (update_map)
		busy_with_bpf();
	if (size && file)
		eat_file(size);
	else if (size)
		eat_memory(size);
	say("ate\n", 0, 0);
	while (hold)
		pause();
	_exit(0);
}

static int sharer(void *name)
{
	mortal();
	prctl(PR_SET_NAME, name);
	for (;;)
		pause();
	return 0;
}

static void run(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	pthread_t thread;

	settle();
	if (share_mm) {
		int pid = clone(sharer, stack + sizeof(stack), CLONE_VM | SIGCHLD, "eat-sharer");

		if (pid < 0)
			die("clone");
		say("child %ld\n", pid, 0);
	}
	if (!second_thread)
		eat(NULL);
	if (pthread_create(&thread, NULL, eat, (void *)thread_comm))
		die("pthread_create");
	if (leader_exits)
		pthread_exit(NULL);
	pthread_join(thread, NULL);
}

/* Like fork(), but the first processes of new PID namespaces are made this way, too. */
static pid_t make_child(unsigned long flags)
{
	pid_t pid;

	pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		die("clone");
	if (pid)
		say("child %ld\n", pid, 0);
	else
		mortal();
	return pid;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_children(void)
{
	int running = 0;

	while (children-- > 0) {
		if (running == jobs) {
			wait_for(-1);
			running--;
		}
		if (!make_child(0))
			run();
		running++;
	}
	while (running-- > 0)
		wait_for(-1);
	return 0;
}

static int run_namespace(void)
{
	pid_t pid = make_child(CLONE_NEWPID);

	if (!pid && namespaces > 1) {
		pid = make_child(0);
		if (pid)
			_exit(wait_for(pid));
	}
	if (!pid)
		run();
	return wait_for(pid);
}

int main(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "+n:T:a:u:g:l:Gw:K:Htzmf:sN:k:p:c:j:PB")) != -1) {
		switch (option) {
		case 'n':
			comm = optarg;
			break;
		case 'T':
			thread_comm = optarg;
			break;
		case 'a':
			adj = optarg;
			break;
		case 'u':
			uid = atol(optarg);
			break;
		case 'g':
			if (n_cgroups == MAX_CGROUPS) {
				fputs(usage, stderr);
				return 2;
			}
			cgroups[n_cgroups++] = optarg;
			break;
		case 'l':
			life = atol(optarg);
			break;
		case 'G':
			gate = 1;
			break;
		case 'w':
			wait_ms = atol(optarg);
			break;
		case 'K':
			kill_first = atol(optarg);
			break;
		case 'H':
			hold = 1;
			break;
		case 't':
			second_thread = 1;
			break;
		case 'z':
			second_thread = leader_exits = 1;
			break;
		case 'm':
			share_mm = 1;
			break;
		case 'f':
			file = optarg;
			break;
		case 's':
			shared = 1;
			break;
		case 'N':
			node = atoi(optarg);
			break;
		case 'k':
			chunk_kib = atol(optarg);
			break;
		case 'p':
			pause_us = atol(optarg);
			break;
		case 'c':
			children = atoi(optarg);
			break;
		case 'j':
			jobs = atoi(optarg);
			break;
		case 'P':
			namespaces++;
			break;
		case 'B':
			update_map = 1;
			break;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind >= argc || chunk_kib < 1 || jobs < 1) {
		fputs(usage, stderr);
		return 2;
	}
	mib = atol(argv[optind]);
	mortal();
	if (namespaces)
		return run_namespace();
	if (children)
		return run_children();
	run();
	return 0;
}
