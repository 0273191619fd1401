/* control_group.h: the control groups of this process: where containers, Slurm and systemd set limits. */
#ifndef MOAI_CONTROL_GROUP_H
#define MOAI_CONTROL_GROUP_H

/* `dir`: a group's directory, in a hierarchy of that version. */
typedef void control_group_visit(void *arg, int version, const char *dir);

/* Visits the own group and those above it, as far as they are mounted here, wherever `controller` ("cpu", "memory") may
 * have its files: in its hierarchy of version 1 and in that of version 2.  `root`: "" is this host; else a test's
 * directory with proc/, to which the mount points are relative. */
void control_groups(const char *root, const char *controller, control_group_visit *visit, void *arg);
/* The number behind `word` at the beginning of a line of DIR/FILE, or its first number when word is ""; -1: none. */
long long control_group_number(const char *dir, const char *file, const char *word);

#endif
