#!/usr/bin/perl
# kill.pl KILLS AIMED OUTPUT_DIR -- COMMAND...: the kill test.
#
# Starts COMMAND (a moai_train that resumes by itself: --resume_from_checkpoint auto) again and again, and ends each life with
# SIGKILL: one rank, drawn at random, or all of them and their launcher, at a random instant; AIMED of the KILLS fall while a
# checkpoint is being written: while there is a checkpoint-N.tmp.  Prints TAP without numbers: every life went on from the newest
# complete checkpoint that the one before had left, none found a damaged one.  The caller then lets the job finish and compares.
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
my $failed = 0;

sub ok {
    my ($holds, $text) = @_;
    print $holds ? '' : 'not ', "ok - $text\n";
    $failed++ unless $holds;
}

# newest checkpoint with a manifest, 0: none
sub newest {
    my ($last) = sort { $b <=> $a } map { m{checkpoint-(\d+)/manifest} } glob "$dir/checkpoint-*/manifest.json";
    return $last // 0;
}

# a save is under way, or was when its run ended
sub saving {
    opendir my $d, $dir or return 0;
    return scalar grep { /^checkpoint-\d+\.tmp$/ } readdir $d;
}

# What the log of this life has said so far: only what is new of it is read.
my ($log_file, $rest, %said);
sub read_log {
    if (!$log_file) {
        open my $f, '<', $log or return \%said;
        $log_file = $f;
    }
    seek $log_file, 0, 1;                     # there may be more than at the last end
    while (my $line = <$log_file>) {
        $rest .= $line;
        last unless $rest =~ /\n\z/;
        $said{steps}++ if $rest =~ /^step \d/;
        $said{from} = $1 if $rest =~ m{^resumed .*: step (\d+)};
        $said{damaged} = 1 if $rest =~ /damaged/;
        $rest = '';
    }
    return \%said;
}

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
    ($log_file, $rest, %said) = (undef, '', steps => 0);
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
    for (my $end = time + ($seconds // 60); time < $end; sleep 0.001) {
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
    } elsif (!wait_until($pid, sub { read_log()->{steps} > 0 })) {
        print "# no step:\n", map { "# $_\n" } split /\n/, `tail -n 15 \Q$log\E`;
        $stuck++;
        kill KILL => ranks($pid), $pid;
        waitpid $pid, 0;
        last;
    } elsif ($aim) {
        wait_until($pid, sub { saving() });
        sleep rand $window;
    } else {
        my $steps = ($before ? 0 : 15) + int rand 30;  # the first ones: until there is something to go on from
        wait_until($pid, sub { read_log()->{steps} > $steps });
        sleep rand 0.02;
    }
    my $trains = read_log()->{steps} > 0;
    my $from = $said{from};
    $lost++ if $trains && ($from // 0) < $before;
    $resumed++ if $from;
    $damaged++ if $said{damaged};
    my @ranks = ranks($pid);
    my @victims = rand() < 0.3 ? (@ranks, $pid) : $ranks[rand @ranks];
    $all++ if @victims > 1;
    kill KILL => @victims;
    $tries++;
    wait_until($pid, sub { 0 }, 5);
    kill KILL => grep { lives($_) } $pid, @ranks;      # Open MPI's mpirun may hang when a rank dies while it starts or ends others
    waitpid $pid, 0;
    sleep 0.002 while grep { lives($_) } @ranks;
    my $half = $trains && saving();           # else what the life before left
    $in_window++ if $half;
    $window = $half ? $window * 1.2 : $window * 0.8 if $aim;
    $window = 0.002 if $window < 0.002;
}
ok($tries >= $kills && !$stuck, "$tries kills of $kills, $all of them of all ranks at once");
ok($in_window >= $aimed, "$in_window fell while a checkpoint was being written; $aimed were wanted");
ok($resumed > 0 && $lost == 0, "$resumed lives went on from a checkpoint; $lost from an older one than there was");
ok($damaged == 0, "$damaged found a damaged one");
print "# newest checkpoint: ", newest(), "\n";
exit($failed != 0);
