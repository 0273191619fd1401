# MOAI.  make            build the programs for the CPU (build/moai_train, moai_tokenize, moai_checkpoint, moai_generate)
#        make test       install what is missing, build, run every test that needs no GPU;  make test T=t4 runs one family
#        make info       what was detected
# Options: ASAN=1 (address and undefined-behaviour sanitizers)  V=1 (show commands)  ARCH=native (x86-64-v4, ...)  O=-O3
.DEFAULT_GOAL := all
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
ARCH ?= native
BUILD ?= build$(if $(ASAN),-asan)

CC  = gcc
CXX = g++
MPICC ?= mpicc
OPT   = $(if $(ASAN),-O1 -g -fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer,-O3 -g)
comma := ,
WARN  = -Wall -Wextra -Wshadow -Wvla
CPPFLAGS += -Isrc -Iparallel -Iio -D_GNU_SOURCE -MMD -MP
CFLAGS   += -std=c11 $(OPT) $(WARN) -march=$(ARCH) -fopenmp -fno-math-errno -fno-trapping-math
CXXFLAGS += -std=c++17 $(OPT) -Wall -Wextra -march=$(ARCH)

has = $(shell echo '\#include <$(1)>' | $(CC) -E $(CPPFLAGS) $(2) - >/dev/null 2>&1 && echo 1)

HDF5_CFLAGS := $(shell pkg-config --cflags hdf5 2>/dev/null)
HDF5_LIBS   := $(shell pkg-config --libs hdf5 2>/dev/null || echo -lhdf5)
ONEDNN := $(call has,oneapi/dnnl/dnnl.h)
BLAS_CFLAGS := $(shell pkg-config --cflags openblas 2>/dev/null)
BLAS_LIBS   := $(shell pkg-config --libs openblas 2>/dev/null || echo -lopenblas)
PRODUCT_LIBS = $(if $(ONEDNN),-ldnnl,$(BLAS_LIBS))
MPI_CFLAGS  := $(shell $(MPICC) --showme:compile 2>/dev/null)
MPI_LIBS    := $(shell $(MPICC) --showme:link 2>/dev/null)
LDLIBS = $(MPI_LIBS) $(HDF5_LIBS) $(PRODUCT_LIBS) -lsentencepiece -lsentencepiece_train -ljansson -lxxhash -lzstd -lstdc++ -lpthread -lm

programs = moai_train moai_tokenize moai_checkpoint moai_generate
sources  = $(wildcard src/*.c parallel/*.c io/*.c)
library  = $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(programs:%=src/%.c),$(sources))) $(patsubst %.cc,$(BUILD)/%.o,$(wildcard io/*.cc))
tests    = $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/t*.c))

all: $(patsubst src/%.c,$(BUILD)/%,$(wildcard $(programs:%=src/%.c)))
build-tests: $(tests)

$(BUILD)/parallel/%.o: CPPFLAGS += $(MPI_CFLAGS)
$(BUILD)/io/%.o: CPPFLAGS += $(HDF5_CFLAGS)
$(BUILD)/src/%.o: CPPFLAGS += $(if $(ONEDNN),-DMOAI_ONEDNN,$(BLAS_CFLAGS))
$(BUILD)/src/cpu_%.o: CFLAGS += -ffp-contract=fast

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@$(if $(Q),echo "  CC   $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<
$(BUILD)/%.o: %.cc
	@mkdir -p $(@D)
	@$(if $(Q),echo "  CXX  $<")
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c -o $@ $<
$(BUILD)/libmoai.a: $(library)
	@rm -f $@; ar rcs $@ $^
$(patsubst %,$(BUILD)/%,$(programs)): $(BUILD)/%: $(BUILD)/src/%.o $(BUILD)/libmoai.a
	@$(if $(Q),echo "  LD   $@")
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/libmoai.a
	@$(if $(Q),echo "  LD   $@")
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

clean:
	rm -rf build build-asan

.PHONY: all build-tests clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
