#!/usr/bin/perl
# Reads a TensorBoard event file from the standard's side: checks every frame's CRC-32C, prints one line per value.
#   version VERSION | start STEP | STEP TAG VALUE
use strict;
use warnings;

sub masked_crc {
    my $crc = 0xFFFFFFFF;
    for my $byte (unpack 'C*', shift) {
        $crc ^= $byte;
        $crc = ($crc & 1) ? ($crc >> 1) ^ 0x82F63B78 : $crc >> 1 for 1 .. 8;
    }
    $crc ^= 0xFFFFFFFF;
    return ((($crc >> 15) | ($crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) & 0xFFFFFFFF;
}

sub varint {
    my $value = 0;
    for (my $shift = 0;; $shift += 7) {
        my $byte = ord substr ${$_[0]}, 0, 1, '';
        $value |= ($byte & 127) << $shift;
        return $value if $byte < 128;
    }
}

# a protobuf message as a list of [field, raw value]
sub fields {
    my $bytes = shift;
    my @list;
    while (length $bytes) {
        my $key = varint(\$bytes);
        my $wire = $key & 7;
        my $value = $wire == 0 ? varint(\$bytes)
                  : $wire == 1 ? unpack('d<', substr $bytes, 0, 8, '')
                  : $wire == 5 ? unpack('f<', substr $bytes, 0, 4, '')
                  : $wire == 2 ? substr($bytes, 0, varint(\$bytes), '')
                  : die "wire type $wire\n";
        push @list, [$key >> 3, $value];
    }
    return @list;
}

open my $file, '<:raw', $ARGV[0] or die "$ARGV[0]: $!\n";
local $/;
my $data = <$file>;
while (length $data) {
    my $length_bytes = substr $data, 0, 8, '';
    die "frame length: wrong CRC\n" if masked_crc($length_bytes) != unpack 'V', substr $data, 0, 4, '';
    my $event = substr $data, 0, unpack('Q<', $length_bytes), '';
    die "frame: wrong CRC\n" if masked_crc($event) != unpack 'V', substr $data, 0, 4, '';
    my %of;
    push @{$of{$_->[0]}}, $_->[1] for fields($event);
    die "wall time $of{1}[0]\n" if abs($of{1}[0] - time) > 86400;
    print "version $of{3}[0]\n" if $of{3};
    print "start $of{2}[0]\n" if $of{7} && (fields($of{7}[0]))[0][1] == 1;
    next unless $of{5};
    for my $value (fields($of{5}[0])) {
        my %v = map { @$_ } fields($value->[1]);
        printf "%d %s %.7g\n", $of{2}[0], $v{1}, $v{2};
    }
}
