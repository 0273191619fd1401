#!/usr/bin/perl
# logits.pl ids RESULTS            the first golden sequence's inputs, 1,2,3
# logits.pl compare RESULTS FILE   the largest difference of FILE (moai_generate --logits_out) from the golden logits of that sequence
use strict;
use warnings;
use JSON::PP;

my ($verb, $results, $file) = @ARGV;

sub slurp {
    open my $in, '<:raw', $_[0] or die "$_[0]: $!\n";
    local $/;
    return scalar <$in>;
}
my $data = slurp($results);                   # safetensors: u64 header length, JSON, numbers
my $n_header = unpack 'Q<', $data;
my $header = decode_json(substr $data, 8, $n_header);

sub numbers {                                 # the first $n of a tensor
    my ($name, $n) = @_;
    return unpack "f<$n", substr $data, 8 + $n_header + $header->{$name}{data_offsets}[0], 4 * $n;
}
my $n_inputs = $header->{ids}{shape}[1] - 1;
my $vocab = $header->{logits}{shape}[1];
if ($verb eq 'ids') {
    print join(',', numbers('ids', $n_inputs)), "\n";
} else {
    my @expected = numbers('logits', $n_inputs * $vocab);
    my @got = unpack 'f<*', slurp($file);
    my $worst = @got == @expected ? 0 : 9e99;
    for my $i (0 .. $#expected) {
        my $difference = abs(($got[$i] // 9e99) - $expected[$i]);
        $worst = $difference unless $difference <= $worst;
    }
    printf "%.3g\n", $worst;
}
