"""Examples of each verb and report: a command line as it is typed, and what it does."""

from __future__ import annotations

Examples = tuple[tuple[str, str], ...]

EXAMPLES: dict[str, Examples] = {
    "calibrate": (
        ("pydamon calibrate", "what things cost here, beside the defaults"),
        ("pydamon calibrate -o costs.yaml", "for simulate and what-if: --costs costs.yaml"),
        ("pydamon calibrate --quick --directory ~/data", "in two seconds; files on the disk of that directory"),
    ),
    "completion": (
        ('eval "$(pydamon completion bash)"', "complete words in this bash; in ~/.bashrc: in each"),
        ("pydamon completion zsh > ~/.zfunc/_pydamon", "for zsh, in a directory of its fpath"),
        ("pydamon completion fish > ~/.config/fish/completions/pydamon.fish", "for fish"),
    ),
    "doctor": (
        ("pydamon doctor", "what can be used here, and what would enable the rest"),
        ("pydamon doctor --json", "the same, for a program"),
    ),
    "export": (
        ("pydamon export run.damon --format parquet -o run.parquet", "for pandas, Polars, DuckDB"),
        ("pydamon export run.damon --format trace-events -o run.json", "to look at in Perfetto"),
        ("pydamon export run.damon --format html -o run.html", "a page that zooms, for a colleague"),
        ("pydamon export run.damon --format perf-script -o -", "as perf script prints the kernel's events"),
    ),
    "fleet": (
        ("pydamon fleet cold /srv/fleet", "how much memory is cold, of each service"),
        ("pydamon fleet savings /srv/fleet --from 2026-11-26", "what reclaim would save, from that day on"),
        ("pydamon fleet compact /srv/fleet --keep 30d", "in a timer, each night"),
    ),
    "fleet candidates": (("pydamon fleet candidates /srv/fleet --top 5", "the five best for each"),),
    "fleet cold": (
        ("pydamon fleet cold /srv/fleet", "of each service, from roll-ups where there are any"),
        ("pydamon fleet cold /srv/fleet --by host_class -o cold.png", "of each class of hosts, as a picture"),
        ("pydamon fleet cold /srv/fleet --raw --cluster tcp://10.0.0.7:8786", "from minutes, by a cluster of Dask"),
    ),
    "fleet compact": (
        ("pydamon fleet compact /srv/fleet", "put files together, roll hours up"),
        ("pydamon fleet compact /srv/fleet --keep 30d --keep-hours 400d", "and delete what is older"),
    ),
    "fleet compare": (
        ("pydamon fleet compare /srv/fleet --rollout kernel=6.18.2", "what the new kernel changed"),
        (
            "pydamon fleet compare /srv/fleet --rollout version=0.2.0 --service search --outcome refaulted",
            "of one service and one outcome",
        ),
    ),
    "fleet cost": (("pydamon fleet cost /srv/fleet", "CPU time and memory of monitoring"),),
    "fleet outliers": (("pydamon fleet outliers /srv/fleet --class small", "hosts unlike others of that class"),),
    "fleet policy": (
        ("pydamon fleet policy /srv/recordings --search 'reclaim min_age=10s..10min' -o policy.yaml", "by program"),
        (
            "pydamon fleet policy /srv/recordings --by folder --search 'reclaim min_age=10s..10min quota=1M..1G'"
            " --limit slowdown=0.5% --share 99%",
            "a folder is a service",
        ),
    ),
    "fleet rightsize": (("pydamon fleet rightsize /srv/fleet --json", "for a program that sets requests"),),
    "fleet savings": (
        ("pydamon fleet savings /srv/fleet", "at 0.2 % of the working set a minute"),
        ("pydamon fleet savings /srv/fleet --goal 0.5%/min --by host_class", "at another goal, by class of hosts"),
    ),
    "fleet simulate": (
        ("pydamon fleet simulate /tmp/fleet --hosts 20 --days 0.1", "a small one to try questions on"),
        ("pydamon fleet simulate /tmp/fleet --seed 7", "1,000 hosts on a day: 7 GB"),
    ),
    "fleet wss": (("pydamon fleet wss /srv/fleet --window 600", "what hosts use within ten minutes"),),
    "generations": (
        ("pydamon generations", "idle memory of all cgroups, and which have most of it"),
        ("pydamon generations --cgroup /system.slice --json", "each generation of some cgroups, for a program"),
        ("pydamon generations -i lru_gen.txt", "a copy of the kernel's file, from another machine"),
    ),
    "serve": (
        ("pydamon serve run.damon", "print an address with a token; open it in a browser"),
        ("pydamon serve before.damon after.damon", "two recordings, side by side on one scale"),
        (
            "pydamon serve run.damon --listen 127.0.0.1:8080",
            "at a port that stays, e.g. for ssh -L 8080:127.0.0.1:8080",
        ),
    ),
    "simulate": (
        ("pydamon simulate stairs --scheme 'pageout rate=0% age>=5s'", "a policy, beside no policy"),
        (
            "pydamon simulate hotspots --machine 'ram=2GiB swap=ssd:1GiB' --module 'reclaim min_age=5s' -o it.png",
            "a module on a machine, as a picture",
        ),
        (
            "pydamon simulate run.damon --machine ram=1GiB --scheme 'pageout rate=0% age>=30s'",
            "a recording, on a machine that is too small for it",
        ),
    ),
    "help": (
        ("pydamon help record", "the help of a verb"),
        ("pydamon help report wss", "that of a report"),
        ("pydamon help --man ~/.local/share/man/man1", "write the pages of the manual; then: man pydamon"),
    ),
    "import": (
        ("pydamon import damon.txt -o run.damon", "text of perf script"),
        ("pydamon import --sample 5ms --aggr 100ms perf.data -o run.damon", "what the file does not say, too"),
    ),
    "metrics": (
        ("pydamon metrics", "all, with their labels"),
        ("pydamon start --metrics 9750 1234", "serve them on this machine, at port 9750"),
    ),
    "metrics board": (("pydamon metrics board > board.json", "a dashboard to import into Grafana"),),
    "metrics rules": (
        ("pydamon metrics rules > /etc/prometheus/pydamon.yml", "for rule_files of Prometheus' configuration"),
    ),
    "metrics serve": (
        ("pydamon metrics serve 9750", "of all that runs in the background, at port 9750 of this machine"),
        ("pydamon metrics serve /var/lib/prometheus/node-exporter/pydamon.prom web", "of one, for node_exporter"),
    ),
    "modules": (
        ("pydamon modules", "all, with their knobs and defaults"),
        ("pydamon modules explain 'reclaim min_age=30s'", "what one does, in words"),
        ("pydamon modules check thp autoscale", "whether this machine can do them"),
    ),
    "modules check": (
        (
            "pydamon modules check 'reclaim files=only' 'lru_sort cold_min_age=60s'",
            "two; and what cannot be done here",
        ),
    ),
    "modules explain": (
        ("pydamon modules explain --ops paddr lru_sort", "on physical memory"),
        ("pydamon modules explain 'tier tiers=0>1'", "what moves which way; without tiers= those of this machine"),
        ("pydamon modules explain 'reclaim min_age=30s quota=64MiB/1s'", "with knobs of your own"),
        ("pydamon modules explain 'reclaim min_age=30s' -i run.damon", "how much would come back, by a record"),
    ),
    "modules from-etmem": (
        ("pydamon modules from-etmem slide.conf > etmem.yaml", "then: pydamon start --spec etmem.yaml"),
    ),
    "modules from-hmsdk": (
        ("pydamon modules from-hmsdk -d 0 2 -p 2 0 > tier.yaml", "then: pydamon start --spec tier.yaml"),
        ("pydamon modules from-hmsdk '-d 0 2 -p 2 0 -g'", "all memory, and not only that of the cgroup /hmsdk"),
    ),
    "mount": (
        ("pydamon mount -- damo start 1234", "let damo work on DAMON's files as pydamon serves them"),
        ("pydamon mount /mnt/damon", "serve them to everybody, until umount"),
    ),
    "record": (
        ("pydamon record -o run.damon --duration 30s 1234", "a running process, for half a minute"),
        ("pydamon record -o run.damon -- ./my_service --flag", "a command, from its start to its end"),
        ("pydamon record --include-children --max-cpu 1% 1234", "a process and its descendants, within 1 % of a CPU"),
        ("pydamon record --dry-run --scheme 'pageout rate=0% age>=60s' 1234", "what a scheme would take"),
        ("pydamon record --module 'reclaim min_age=30s files=only' 1234", "page out idle file pages meanwhile"),
        ("pydamon record --ops sim --workload stairs -o sim.damon", "a simulation: needs no process"),
        ("pydamon record --explain 1234", "what would be done, in words"),
    ),
    "record cut": (("pydamon record cut -i run.damon --from 10s --to 20s -o part.damon", "ten seconds of a record"),),
    "record merge": (("pydamon record merge run.0001.damon run.0002.damon -o run.damon", "parts become one record"),),
    "record aggregate": (
        ("pydamon record aggregate -i run.damon --factor 10 -o coarse.damon", "a tenth of the snapshots"),
    ),
    "report": (
        ("pydamon report -i run.damon", "the summary: one screen"),
        ("pydamon report heatmap -i run.damon", "which addresses were accessed how much, when"),
        ("pydamon report wss -i run.damon --json", "a report for a program"),
        ("pydamon help report access", "the options of a report"),
    ),
    "report access": (
        ("pydamon report access -i run.damon --by hottest --top 10", "the ten hottest regions at the end"),
        ("pydamon report access -i run.damon --age 10s- --rate 0-0", "what was idle for ten seconds and more"),
        ("pydamon report access -i run.damon --at 5s --mapping '[heap]'", "the heap, five seconds after the start"),
    ),
    "report bandwidth": (("pydamon report bandwidth -i run.damon --from -10s", "over the last ten seconds"),),
    "report cost": (("pydamon report cost -i run.damon", "what the recording took from the machine"),),
    "report diff": (
        ("pydamon report diff before.damon after.damon", "what changed within one process"),
        ("pydamon report diff --by mapping before.damon after.damon", "between two releases of a program"),
    ),
    "report files": (
        ("pydamon report files -i run.damon", "libraries and data files, each once for all processes that map it"),
    ),
    "report footprint": (("pydamon report footprint -i run.damon", "what is used of what is resident"),),
    "report heatmap": (
        ("pydamon report heatmap -i run.damon", "in the terminal"),
        ("pydamon report heatmap -i run.damon -o heat.png", "as a picture"),
        ("pydamon report heatmap -i run.damon --range hottest --from 5s --to 10s", "a closer look"),
    ),
    "report idle": (("pydamon report idle -i run.damon", "what could be taken away"),),
    "report info": (
        ("pydamon report info -i run.damon", "what the record is about"),
        ("pydamon report info --verify -i run.damon", "whether it is whole"),
    ),
    "report attrs": (
        ("pydamon report attrs -i run.damon", "of a record made with --probe"),
        ("pydamon report attrs --live web", "of a kdamond in the background, as it runs"),
    ),
    "report profile": (
        ("pydamon report profile -i run.damon --perf cpu.txt", "cpu.txt is of perf record and perf script"),
    ),
    "report raw": (("pydamon report raw -i run.damon", "every region of every snapshot"),),
    "report recency": (
        ("pydamon report recency -i run.damon", "bytes by how long ago they were accessed"),
        ("pydamon report recency --rate -i run.damon", "bytes by how often"),
    ),
    "report regions": (("pydamon report regions -i run.damon --from 1s --to 2s", "every region of one second"),),
    "report modules": (
        ("pydamon report modules -i run.damon", "what was taken, what came back and when, what it cost"),
        ("pydamon report modules --json -i run.damon", "with all percentiles of stat"),
    ),
    "report schemes": (
        ("pydamon report schemes -i run.damon", "what they tried and applied, over time"),
        ("pydamon report schemes --tried -i run.damon", "the regions that were tried last"),
    ),
    "report summary": (("pydamon report summary -i run.damon", "one screen"),),
    "report temperature": (("pydamon report temperature -i run.damon --whole", "over all snapshots"),),
    "report wss": (
        ("pydamon report wss -i run.damon", "the working set, by percentiles"),
        ("pydamon report wss -i run.damon --over time", "how it changed"),
        ("pydamon report wss -i run.damon --window 10s", "what was used within ten seconds, and how sure that is"),
    ),
    "schemes": (
        ("pydamon schemes check policy.yaml", "whether each is valid"),
        ("pydamon schemes explain policy.yaml", "what they do, in words"),
    ),
    "schemes check": (("pydamon schemes check policy.yaml other.json", "several files"),),
    "schemes explain": (("pydamon schemes explain --ops paddr policy.yaml", "for physical memory"),),
    "schemes show": (("pydamon schemes show --format damo policy.yaml", "as damo reads them"),),
    "service": (
        ("pydamon service run web.yaml", "run what the file declares; run may be left out"),
        ("pydamon service check web.yaml", "whether it is valid, and what it says"),
        ("pydamon service reload", "have the service that runs read its file anew"),
    ),
    "service check": (("pydamon service check /etc/pydamon/web.yaml", "whether it is valid, and what it says"),),
    "service reload": (("pydamon service reload web", "regions of what has not changed stay"),),
    "service run": (("pydamon service run /etc/pydamon/web.yaml", "until Ctrl-C or SIGTERM"),),
    "service status": (("pydamon service status web --json", "its monitors, for a program"),),
    "service stop": (("pydamon service stop web", "end it, and all that it runs"),),
    "start": (
        ("pydamon start 1234", "monitor a process in the background"),
        ("pydamon start --scheme 'pageout rate=0% age>=60s quota=128MiB/1s' 1234", "and take away what is idle"),
        ("pydamon start --spec policy.yaml --log /tmp/policy.log", "what a file says"),
    ),
    "status": (
        ("pydamon status", "all that runs, in a few lines"),
        ("pydamon status 0 --json", "all about one, for a program"),
    ),
    "stop": (
        ("pydamon stop", "the only one"),
        ("pydamon stop --all --undo", "all, and take back what their schemes did"),
    ),
    "top": (
        ("pydamon top", "all processes, by what they used within 10 s"),
        ("pydamon top --uid postgres --tree", "those of one user, in groups by cgroup"),
        ("pydamon top -b -n 3 -d 10s --json", "three times, ten seconds apart, for a program"),
    ),
    "trace": (
        ("pydamon trace --duration 2s 1234", "a line for each region, every aggregation"),
        ("pydamon trace -i run.damon", "the same of a record"),
    ),
    "tune": (
        ("pydamon tune --max-cpu 0.5%", "let it cost less"),
        ("pydamon tune 0 --scheme 'pageout age>=2m quota=64MiB/1s'", "replace its schemes"),
        ("pydamon tune --pause", "cost nothing for a while, and go on from there with --resume"),
        ("pydamon tune --probe anon --probe hugepage_size=2M", "count other attributes; --probe none: none"),
    ),
    "what-if": (
        ("pydamon what-if run.damon", "what taking idle memory would save and cost, for all idle times"),
        ("pydamon what-if run.damon --goal 0.5%/min --slowdown 1%", "the lowest idle times that keep within these"),
        ("pydamon what-if run.damon --refaults 512KiB/s --fast 4GiB", "how much memory it needs; a fast tier"),
        ("pydamon what-if run.damon -o what-if.png", "as a picture"),
        (
            "pydamon what-if run.damon --schemes a.yaml --module 'reclaim min_age=30s'",
            "play the recording under two policies, side by side",
        ),
        (
            "pydamon what-if run.damon --search 'reclaim min_age=5s..5min quota=16M..1G' --limit slowdown=2%",
            "the knobs that save most within the limit",
        ),
    ),
    "workload": (
        ("pydamon workload stairs", "ten ranges of 10 MB, each hot in turn"),
        ("pydamon workload --repeat 0 --time-scale 0.1 hotspots", "for ever, ten times as fast"),
    ),
}
