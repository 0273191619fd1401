#!/usr/bin/perl
# trace.pl FILE RANK STAGE STAGES LAYERS MICRO_BATCHES: is this the whole trace of one 1F1B step?  Complains, a line each, and leaves with 1;
# else prints the events and the FLOPs of the products.  LAYERS are the stage's.
use strict;
use warnings;
use JSON::PP;

my ($file, $rank, $stage, $stages, $layers, $micro) = @ARGV;
open my $f, '<', $file or die "$file: $!\n";
my $trace = decode_json(do { local $/; <$f> });
my $bad = 0;
sub complain { print "# $file: @_\n"; $bad = 1 }
sub expect { my ($what, $n, $want) = @_; complain("$what: $n, not $want") if $n != $want }

my (%lane, %lanes, %calls, @phases, $flops);
for my $e (@{$trace->{traceEvents}}) {
    complain("pid $e->{pid}") if $e->{pid} != $rank;
    $lane{$e->{tid}} = $e->{args}{name} if $e->{ph} eq 'M' && $e->{name} eq 'thread_name';
    push @{$lanes{$e->{tid}}}, $e if $e->{ph} eq 'X';
}
for my $tid (keys %lanes) {
    my $until = 0;
    for my $e (sort { $a->{ts} <=> $b->{ts} } @{$lanes{$tid}}) {
        complain("$e->{name} at $e->{ts} on $lane{$tid} begins before $until") if $e->{ts} < $until - 0.0005;
        complain("$e->{name} lasts $e->{dur}") if $e->{dur} < 0;
        $until = $e->{ts} + $e->{dur};
        push @phases, $e->{name} if $lane{$tid} eq 'phases';
        next if $lane{$tid} eq 'phases';
        my $axis = $e->{cat} =~ /^(tp|dp|pp|kv|embed)$/ ? "$e->{cat} " : '';
        my $in = defined $e->{args}{micro_batch} ? "$e->{args}{phase} $e->{args}{micro_batch}" : $e->{args}{phase} // '';
        $calls{"$axis$e->{name}"}{$in}++;
        if ($e->{name} =~ /^matmul/) { my ($a, $b, $c) = split / x /, $e->{args}{shape}; $flops += 2 * $a * $b * $c }
    }
}
sub total { my ($name) = @_; my $n = 0; $n += $_ for values %{$calls{$name}}; $n }

# the schedule: warm-up forwards, one forward and one backward in turn, the last backwards
my $warm_up = $stages - 1 - $stage < $micro ? $stages - 1 - $stage : $micro;
my @schedule = map { "forward $_" } 0 .. $warm_up - 1;
push @schedule, "forward $_", 'backward ' . ($_ - $warm_up) for $warm_up .. $micro - 1;
push @schedule, map { "backward $_" } $micro - $warm_up .. $micro - 1;
complain("phases @phases, not @schedule optimizer") if "@phases" ne "@schedule optimizer";

my ($first, $last) = ($stage == 0, $stage == $stages - 1);
for my $m (0 .. $micro - 1) {
    for (qw(qknorm_rope attend swiglu)) {
        expect("$_ of forward $m", $calls{$_}{"forward $m"} // 0, $layers);
        expect("${_}_backward of backward $m", $calls{"${_}_backward"}{"backward $m"} // 0, $layers);
    }
    expect("embed of forward $m", $calls{embed}{"forward $m"} // 0, $first ? 1 : 0);
    expect("embed_backward of backward $m", $calls{embed_backward}{"backward $m"} // 0, $first ? 1 : 0);
    expect("cross_entropy of forward $m", $calls{cross_entropy}{"forward $m"} // 0, $last ? 1 : 0);
    expect("recv of forward $m", $calls{'pp recv'}{"forward $m"} // 0, $first ? 0 : 1);
    expect("send of forward $m", $calls{'pp send'}{"forward $m"} // 0, $last ? 0 : 1);
    expect("recv of backward $m", $calls{'pp recv'}{"backward $m"} // 0, $last ? 0 : 1);
    expect("send of backward $m", $calls{'pp send'}{"backward $m"} // 0, $first ? 0 : 1);
}
expect('clip of optimizer', $calls{clip}{optimizer} // 0, 1);
complain('no adamw in optimizer') unless $calls{adamw}{optimizer};
expect("waits for $_", total("wait $_"), total($_)) for grep { /^(tp|dp|pp|kv|embed) / } keys %calls;
print "$flops\n" unless $bad;
exit $bad;
