#!/usr/bin/perl
# kill.pl KILLS AIMED OUTPUT_DIR -- COMMAND...: the kill test.
#
# Starts COMMAND (a moai_train that resumes by itself: --resume_from_checkpoint auto) again and again, and ends each life with
# SIGKILL: one rank, drawn at random, or all of them and their launcher, at a random instant; AIMED of the KILLS fall while a
# checkpoint is being written, between the appearance of checkpoint-N.tmp and the next save.  Prints TAP: every life went on from
# the newest complete checkpoint that the one before had left, none found a damaged one.  The caller then lets the job finish and compares.
#
# The ranks are the launcher's children on this host (mpirun; srun's are not).  SEED=7 draws other instants.
use strict;
use warnings;
use POSIX ':sys_wait_h';
use Time::HiRes qw(time sleep);

my ($kills, $aimed, $dir, $dashes, @command) = @ARGV;
die "usage: kill.pl KILLS AIMED OUTPUT_DIR -- COMMAND...\n" unless @command && $dashes eq '--';
srand($ENV{SEED} // 7);
$| = 1;
my $log = "$dir.log";
my ($tests, $failed) = (0, 0);

sub ok {
    my ($holds, $text) = @_;
    printf "%sok %d - %s\n", $holds ? '' : 'not ', ++$tests, $text;
    $failed++ unless $holds;
}

# newest checkpoint with a manifest, 0: none
sub newest {
    my ($last) = sort { $b <=> $a } map { m{checkpoint-(\d+)/manifest} } glob "$dir/checkpoint-*/manifest.json";
    return $last // 0;
}

sub read_log { open my $f, '<', $log or return ''; local $/; return scalar <$f> }

# ranks: processes whose parent is the launcher; the launcher itself when it is the only rank
sub ranks {
    my ($launcher) = @_;
    my @children;
    for my $stat (glob '/proc/[0-9]*/stat') {
        open my $f, '<', $stat or next;
        push @children, $1 if (<$f> // '') =~ /^(\d+) \(.*\) \S (\d+)/ && $2 == $launcher;
    }
    return @children ? @children : ($launcher);
}

# still at work: an orphan that nobody has waited for is not
sub lives {
    open my $f, '<', "/proc/$_[0]/stat" or return 0;
    return (<$f> // '') =~ /\) [^ZX] /;
}

sub start {
    unlink $log;
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    open STDOUT, '>', $log or die "$log: $!";
    open STDERR, '>&', \*STDOUT;
    setpgrp;
    exec @command or die "$command[0]: $!";
}

# waits until $done says so, the job ends or a minute is over
sub wait_until {
    my ($pid, $done, $seconds) = @_;
    for (my $end = time + ($seconds // 60); time < $end; sleep 0.0005) {
        return 1 if $done->();
        return 0 if waitpid $pid, WNOHANG;
    }
    return 0;
}

my ($resumed, $in_window, $tries, $all, $lost, $damaged, $stuck) = (0) x 7;
my $window = 0.02;                            # seconds that a save takes, learnt on the way
for my $n (1 .. 3 * $kills) {
    my $left = $kills - $tries;
    last if $left <= 0 && $in_window >= $aimed;
    my $aim = $in_window < $aimed && ($left <= 0 || rand($left) < $aimed - $in_window);
    my $before = newest();
    my $pid = start();
    if (!$aim && rand() < 0.4) {              # while it starts, loads, cleans up
        sleep rand 0.8;
    } elsif (!wait_until($pid, sub { read_log() =~ /^step \d/m })) {
        print map { "# $_\n" } split /\n/, read_log();
        $stuck++;
        last;
    } elsif ($aim) {
        wait_until($pid, sub { !glob "$dir/checkpoint-*.tmp" });
        wait_until($pid, sub { scalar(() = glob "$dir/checkpoint-*.tmp") });
        sleep rand $window;
    } else {
        my $steps = int rand 30;
        wait_until($pid, sub { (() = read_log() =~ /^step /mg) > $steps });
        sleep rand 0.02;
    }
    my $trains = read_log() =~ /^step \d/m;
    my ($from) = read_log() =~ m{^resumed .*: step (\d+)}m;
    $lost++ if $trains && ($from // 0) < $before;
    $resumed++ if $from;
    $damaged++ if read_log() =~ /damaged/;
    my @ranks = ranks($pid);
    my @victims = rand() < 0.3 ? (@ranks, $pid) : $ranks[rand @ranks];
    $all++ if @victims > 1;
    kill KILL => @victims;
    $tries++;
    wait_until($pid, sub { 0 }, 5);
    kill KILL => grep { lives($_) } $pid, @ranks;      # Open MPI's mpirun may hang when a rank dies while it starts or ends others
    waitpid $pid, 0;
    sleep 0.01 while grep { lives($_) } @ranks;
    my @half = $trains ? glob "$dir/checkpoint-*.tmp" : ();   # else what the life before left
    $in_window++ if @half;
    $window = @half ? $window * 1.2 : $window * 0.8 if $aim;
    $window = 0.002 if $window < 0.002;
}
ok($tries >= $kills && !$stuck, "$tries kills of $kills, $all of them of all ranks at once");
ok($in_window >= $aimed, "$in_window fell while a checkpoint was being written; $aimed were wanted");
ok($resumed > 0 && $lost == 0, "$resumed lives went on from a checkpoint; $lost from an older one than there was");
ok($damaged == 0, "$damaged found a damaged one");
print "# newest checkpoint: ", newest(), "\n";
exit($failed != 0);
