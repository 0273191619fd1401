#!/usr/bin/perl
# startup.pl DIR RANKS TITLE: from DIR/trace.RANK, which startup.sh had strace write, the files below DIR that the ranks opened and the bytes
# that they read: until metrics.jsonl is opened, after which only rank 0 prepares anything, and until the first step is recorded there.
use strict;
use warnings;
my ($dir, $ranks, $title) = @ARGV;
my @classes = ('token shards', 'data manifest', 'tokenizer', 'model', 'checkpoint manifest', 'checkpoint pieces', 'checkpoint, other', 'other');

sub class_of {
    my $path = shift;
    return undef if $path !~ m{^\Q$dir\E/} || $path =~ m{/(trace\.|ompi\.)};
    return 'token shards' if $path =~ m{/data/[^/]*\.h5$};
    return 'data manifest' if $path =~ m{/data/manifest\.json$};
    return 'checkpoint manifest' if $path =~ m{/checkpoint-\d+/manifest\.json$};
    return 'checkpoint pieces' if $path =~ m{/checkpoint-\d+/.*\.h5$};
    return 'checkpoint, other' if $path =~ m{/checkpoint-\d+/.};
    return 'tokenizer' if $path =~ m{tokenizer\.model$};
    return 'model' if $path =~ m{/model\.json$};
    return 'other';
}

my (@events, $ready, $stepped);                # [rank, time, class, files opened, bytes read]
for my $rank (0 .. $ranks - 1) {
    open my $f, '<', "$dir/trace.$rank" or die "$dir/trace.$rank: $!\n";
    my %begun;                                 # calls that another thread interrupts are told in two lines
    while (<$f>) {
        my ($pid, $time, $call) = /^(\d+)\s+([\d.]+) (.*)/ or next;
        if ($call =~ /(.*) <unfinished \.\.\.>$/) { $begun{$pid} = $1; next }
        $call = ($begun{$pid} // '') . $1 if $call =~ /^<\.\.\. \w+ resumed>(.*)/;
        if ($call =~ /^open(?:at)?\(.* = \d+<([^>]*)>$/) {
            my $class = class_of($1) // next;
            push @events, [$rank, $time, $class, 1, 0];
            $ready = $time if $call =~ m{/metrics\.jsonl>$};
        } elsif ($call =~ /^p?readv?(?:64)?\(\d+<([^>]*)>.* = (\d+)$/) {
            my ($n_bytes, $class) = ($2, class_of($1));
            push @events, [$rank, $time, $class, 0, $n_bytes] if defined $class;
        } elsif ($call =~ m{^write\(\d+<[^>]*/metrics\.jsonl>, "\{\\"step\\"}) {
            $stepped //= $time;
        }
    }
}
die "no first step in the traces\n" unless defined $ready && defined $stepped;

sub range { my @x = sort { $a <=> $b } @_; my $sum = 0; $sum += $_ for @x; ($x[0], $x[-1], $sum) }

printf "%s\n  %-20s %33s %38s %24s\n", $title, '', 'files opened by a rank, by all', 'bytes read by a rank, by all', 'by all, with step 1';
for my $class (@classes) {
    my (@opens, @bytes, @late);
    $opens[$_] = $bytes[$_] = 0 for 0 .. $ranks - 1;
    @late = (0, 0);
    for my $e (@events) {
        my ($rank, $time, $of, $n, $n_bytes) = @$e;
        next if $of ne $class || $time >= $stepped;
        $late[0] += $n, $late[1] += $n_bytes;
        $opens[$rank] += $n, $bytes[$rank] += $n_bytes if $time < $ready;
    }
    next unless $late[0];
    printf "  %-20s %12d to %6d, %9d %15d to %9d, %10d %11d, %11d\n", $class, range(@opens), range(@bytes), @late;
}
