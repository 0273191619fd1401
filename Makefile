# MOAI: a pretraining job for Qwen3-style language models.
#
#   make              the programs for the CPU: build/moai_train, moai_tokenize, moai_checkpoint, moai_generate
#   make test         installs what is missing (apt), builds, runs every test, or all that can run;  make test T=t4 runs one family
#   make demo         a small model learns real text on four MPI ranks and writes some;  TEXT=my.txt takes your own
#   make demo-sft     tunes it on questions and answers of that text (LoRA), and asks it
#   make test-gpu     what a GPU can be tested for, on whatever GPUs are there (CUDA=1);  make bench-gpu measures its speed
#   make test-slurm   jobs of slurm/ on a Slurm cluster of four nodes that lives on this machine while they run (root)
#   make fuzz         libFuzzer targets over whatever is read from outside, FUZZ_S=60 seconds each;  T=config runs fuzz-config* (clang)
#   make test-slow    the long tests;  make bench measures speed;  both compare with PyTorch where PYTHON=... has torch
#   make info         what was detected;  make deps installs what is missing;  make install PREFIX=/usr/local;  make clean
#
# Options: ASAN=1         address and undefined-behaviour sanitizers, in build-asan/
#          PREFIXES=/a:/b look for libraries under /a and /b first (include, lib, lib/pkgconfig, bin)
#          MPICC=...      Open MPI's compiler wrapper        ONEDNN=  products through CBLAS instead of oneDNN
#          CUDA=1         the GPU backend (needs nvcc, found through PATH, CUDA_HOME or NVCC=); CUDA_ARCH="80 90a" the cards built for
#          PACKINGS="gzip xz bzip2"  of text that is read, besides zstd: those whose libraries are found
#          ARCH=x86-64-v3 the processor built for: native, that of this machine; for make install x86-64-v3
#          V=1      show the commands, and each check of the tests
.DEFAULT_GOAL := all
T ?= t
V ?= 0
DEVICE ?= cuda
# what stays here is built for the processor that is here, what is installed for most of those that are there
wanted_arch := $(ARCH)
ARCH ?= native
install_arch  := $(or $(wanted_arch),$(if $(filter x86_64,$(shell uname -m)),x86-64-v3,native))
install_build  = $(BUILD)$(if $(wanted_arch),,-$(install_arch))
PREFIX ?= /usr/local
FUZZ_S ?= 60
BUILD ?= build$(if $(FUZZ),-fuzz,$(if $(ASAN),-asan))
MPICC ?= mpicc
CC  = $(if $(FUZZ),clang,gcc)
CXX = $(if $(FUZZ),clang++,g++)
Q := $(if $(filter 1,$(V)),,@)
comma := ,

# ---- what is there -----------------------------------------------------------------------------------------------
prefixes := $(subst :, ,$(PREFIXES))
$(foreach p,$(prefixes),$(if $(wildcard $p/.),,$(error PREFIXES: $p is not a directory)))
export PATH := $(subst $() ,,$(foreach p,$(prefixes),$p/bin:))$(PATH)
export PKG_CONFIG_PATH := $(subst $() ,,$(foreach p,$(prefixes),$p/lib/pkgconfig:))$(PKG_CONFIG_PATH)
PREFIX_CFLAGS := $(prefixes:%=-I%/include)
PREFIX_LIBS   := $(foreach p,$(prefixes),-L$p/lib -Wl$(comma)-rpath$(comma)$p/lib)

HDF5_PC     := $(firstword $(foreach p,hdf5-serial hdf5,$(if $(shell pkg-config --exists $p 2>/dev/null && echo yes),$p)))
HDF5_CFLAGS := $(if $(HDF5_PC),$(shell pkg-config --cflags $(HDF5_PC)))
HDF5_LIBS   := $(if $(HDF5_PC),$(shell pkg-config --libs $(HDF5_PC)),-lhdf5)
BLAS_CFLAGS := $(shell pkg-config --cflags openblas 2>/dev/null)
BLAS_LIBS   := $(shell pkg-config --libs openblas 2>/dev/null || echo -lopenblas)
MPI_CFLAGS  := $(shell $(MPICC) --showme:compile 2>/dev/null)
MPI_LIBS    := $(shell $(MPICC) --showme:link 2>/dev/null)

# HEADER:PACKAGE and PROGRAM:PACKAGE, the names that Debian 12 and Ubuntu 24.04 give the packages
headers = mpi.h:libopenmpi-dev hdf5.h:libhdf5-dev sentencepiece_trainer.h:libsentencepiece-dev jansson.h:libjansson-dev \
          xxhash.h:libxxhash-dev zstd.h:libzstd-dev cblas.h:libopenblas-dev pcre2.h:libpcre2-dev utf8proc.h:libutf8proc-dev
build_programs = gcc:build-essential g++:build-essential pkg-config:pkg-config $(MPICC):libopenmpi-dev mpirun:openmpi-bin
test_programs  = h5dump:hdf5-tools zstd:zstd perl:perl prove:perl
slurm_programs = sbatch:slurm-wlm munge:munge ip:iproute2
name_of    = $(word 1,$(subst :, ,$1))
package_of = $(word 2,$(subst :, ,$1))
hash      := \#
no_header  = $(shell printf '$(foreach h,$1,$(hash)if !__has_include(<$(call name_of,$h)>)\n$(call package_of,$h)\n$(hash)endif\n)' | \
             $(CXX) $(PREFIX_CFLAGS) $(HDF5_CFLAGS) $(BLAS_CFLAGS) $(MPI_CFLAGS) $(CUDA_CPPFLAGS) -x c++ -E -P - 2>/dev/null || echo $(foreach h,$1,$(call package_of,$h)))
no_program = $(foreach p,$1,$(if $(shell command -v $(call name_of,$p)),,$(call package_of,$p)))

$(if $(filter command%,$(origin MPICC)),$(if $(call no_program,$(MPICC):none),$(error MPICC=$(MPICC) is not found)))
no_onednn := $(call no_header,oneapi/dnnl/dnnl.h:libdnnl-dev)
ifeq ($(origin ONEDNN),undefined)
ONEDNN := $(if $(no_onednn),,1)
else
$(if $(ONEDNN),$(if $(no_onednn),$(error ONEDNN=$(ONEDNN): oneapi/dnnl/dnnl.h is not found (package libdnnl-dev, or PREFIXES=))))
endif
# packings of text files that are read where their libraries are; zstd always is
no_packing := $(call no_header,zlib.h:gzip lzma.h:xz bzlib.h:bzip2)
PACKINGS ?= $(filter-out $(no_packing),gzip xz bzip2)
$(if $(filter $(no_packing),$(PACKINGS)),$(error PACKINGS=$(PACKINGS): no headers of $(filter $(no_packing),$(PACKINGS))))
packing_libs = $(if $(filter gzip,$(PACKINGS)),-lz) $(if $(filter xz,$(PACKINGS)),-llzma) $(if $(filter bzip2,$(PACKINGS)),-lbz2)
packing_packages = $(patsubst gzip,zlib1g-dev,$(patsubst xz,liblzma-dev,$(patsubst bzip2,libbz2-dev,$(no_packing))))
missing := $(sort $(call no_header,$(headers)) $(call no_program,$(build_programs)))
ifndef PYTHON
PYTHON := $(firstword $(foreach p,python3 /usr/bin/python3,$(if $(shell exec 2>/dev/null; $p -c 'import h5py; print(1)'),$p)))
endif
no_corpus = $(if $(TEXT),,$(call no_program,bible:bible-kjv))
missing_for_tests = $(sort $(call no_program,$(test_programs)) $(if $(PYTHON),,python3-h5py))

# ---- how it is compiled ------------------------------------------------------------------------------------------
sanitizers = -O1 -g -fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
# half precision is a type for storage only in clang 14 on x86
OPT       = $(if $(FUZZ),$(sanitizers) -fsanitize=fuzzer-no-link -Wno-c2x-extensions -Wno-pass-failed $(no_half),$(if $(ASAN),$(sanitizers),-O3 -g))
no_half  := $(if $(FUZZ),$(shell echo '_Float16 x;' | $(CC) -fsyntax-only -x c - 2>/dev/null || echo -D_Float16=__fp16))
CPPFLAGS += -I. -D_GNU_SOURCE -MMD -MP $(CUDA_CPPFLAGS) $(PREFIX_CFLAGS)
# gnu11: vectors, _Float16 and unnamed parameters are used; its leave to contract products and sums is taken in src/cpu only
CFLAGS   += -std=gnu11 -ffp-contract=off $(OPT) -Wall -Wextra -Wshadow -Wvla -march=$(ARCH) -fopenmp -fno-math-errno -fno-trapping-math
CXXFLAGS += -std=c++17 $(OPT) -Wall -Wextra -march=$(ARCH)
LDLIBS    = $(PREFIX_LIBS) $(CUDA_LIBS) $(MPI_LIBS) $(HDF5_LIBS) $(if $(ONEDNN),-ldnnl,$(BLAS_LIBS)) -lsentencepiece -lsentencepiece_train \
            -ljansson -lxxhash -lzstd -lpcre2-8 -lutf8proc $(packing_libs) -lstdc++ -lpthread -lm

# ---- the GPU: CUDA=1 ---------------------------------------------------------------------------------------------
CUDA_ARCH ?= 90a
ifneq ($(filter-out 0,$(CUDA)),)
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc)))
NVCC      ?= $(CUDA_HOME)/bin/nvcc
$(if $(shell command -v $(NVCC)),,$(error CUDA=$(CUDA): nvcc is not found.  Name its place (CUDA_HOME=/usr/local/cuda), or build without: make))
NVCCFLAGS += -std=c++17 -O3 -lineinfo $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$a$(comma)code=sm_$a) -Xcompiler -Wall$(comma)-Wextra
CUDA_CPPFLAGS = -DMOAI_CUDA -isystem $(CUDA_HOME)/include
missing_cuda := $(strip $(call no_header,cublasLt.h:cuBLASLt nccl.h:NCCL))
$(if $(missing_cuda),$(error CUDA=$(CUDA): no headers of $(missing_cuda) in $(CUDA_HOME)/include or where the compiler looks (libnccl-dev; PREFIXES=)))
# cuDNN's fused attention, through its header-only frontend (PyPI nvidia-cudnn-frontend): CUDNN_FRONTEND=/where/its/include/is; CUDNN= without
CUDNN_FRONTEND ?= $(shell python3 -c 'import cudnn, os; print(os.path.join(os.path.dirname(os.path.dirname(cudnn.__file__)), "include"))' 2>/dev/null)
CUDNN ?= $(and $(wildcard $(CUDNN_FRONTEND)/cudnn_frontend.h),$(if $(call no_header,cudnn.h:cudnn),,1))
$(BUILD)/cuda/%.o: CPPFLAGS += $(if $(CUDNN),-DMOAI_CUDNN -DCUDNN_FRONTEND_SKIP_JSON_LIB -isystem $(CUDNN_FRONTEND))
CUDA_LIBS     = -L$(CUDA_HOME)/lib64 -Wl$(comma)-rpath$(comma)$(CUDA_HOME)/lib64 -lcublasLt -lnccl $(if $(CUDNN),-lcudnn -lnvrtc) -lcudart
cuda_sources  = $(filter-out $(if $(CUDNN),,cuda/attend/attend_cudnn.cc),$(wildcard $(foreach e,c cc cu,cuda/*.$e cuda/attend/*.$e cuda/gpu/*.$e))) \
                $(wildcard parallel/nccl/*.c)
cuda_benches  = $(wildcard cuda/bench/*.c)
$(BUILD)/%.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	@$(if $(Q),echo "  NVCC $<")
	$(Q)$(NVCC) $(CPPFLAGS) $(NVCCFLAGS) -c -o $@ $<
endif

programs = moai_train moai_tokenize moai_checkpoint moai_generate
sources  = $(filter-out src/programs/% parallel/nccl/%,$(wildcard $(foreach d,src parallel io,$d/*/*.c $d/*/*.cc)))
library  = $(addprefix $(BUILD)/,$(addsuffix .o,$(basename $(sources)))) $(addprefix $(BUILD)/,$(addsuffix .o,$(basename $(cuda_sources))))
binaries = $(programs:%=$(BUILD)/%)
# linked by name: nothing calls it, it runs before main
processor = $(BUILD)/src/host/processor.o
fuzz_parts = fuzz fuzz_json pack_text
fuzzers  = $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz-*.c))
tests    = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/t*.c tests/tools/*.c tests/slow/*.c tests/bench/*.c) $(cuda_benches))

all: $(binaries)
build-tests: $(tests)
build-fuzzers: $(fuzzers)

$(BUILD)/parallel/%.o: CPPFLAGS += $(MPI_CFLAGS)
$(BUILD)/io/%.o $(BUILD)/tests/t7-shard.o: CPPFLAGS += $(HDF5_CFLAGS)
$(BUILD)/io/text/unpack.o $(BUILD)/tests/fuzz/pack_text.o: CPPFLAGS += $(if $(filter gzip,$(PACKINGS)),-DMOAI_GZIP) $(if $(filter xz,$(PACKINGS)),-DMOAI_XZ) $(if $(filter bzip2,$(PACKINGS)),-DMOAI_BZIP2)
$(BUILD)/io/hf/hf_streams.o: io/hf/modeling_moai.py
$(BUILD)/tests/fuzz/%.o: CPPFLAGS += $(MPI_CFLAGS) $(HDF5_CFLAGS)
$(BUILD)/src/cpu/%.o: CPPFLAGS += $(if $(ONEDNN),-DMOAI_ONEDNN,$(BLAS_CFLAGS))
$(BUILD)/src/cpu/cpu_%.o: CFLAGS += -ffp-contract=fast
$(processor): CFLAGS := $(filter-out -march=%,$(CFLAGS))

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@$(if $(Q),echo "  CC   $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<
$(BUILD)/%.o: %.cc $(BUILD)/flags
	@mkdir -p $(@D)
	@$(if $(Q),echo "  CXX  $<")
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c -o $@ $<
$(BUILD)/libmoai.a: $(library)
	@rm -f $@; ar rcs $@ $^
$(binaries): $(BUILD)/%: $(BUILD)/src/programs/%.o $(processor) $(BUILD)/libmoai.a
	@$(if $(Q),echo "  LD   $@")
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(tests): $(BUILD)/%: $(BUILD)/%.o $(processor) $(BUILD)/libmoai.a
	@$(if $(Q),echo "  LD   $@")
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(fuzzers): $(BUILD)/%: $(BUILD)/tests/fuzz/%.o $(fuzz_parts:%=$(BUILD)/tests/fuzz/%.o) $(BUILD)/libmoai.a
	@$(if $(Q),echo "  LD   $@")
	$(Q)$(CXX) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LDLIBS)

# other flags than last time: everything is compiled again; a missing header is named before the compiler stumbles over it
flags = $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(LDLIBS) onednn=$(ONEDNN) packings=$(PACKINGS) cudnn=$(CUDNN) $(NVCC) $(NVCCFLAGS)
$(BUILD)/flags: FORCE
	$(if $(missing),$(error missing: $(missing).  `make deps` installs packages on Debian and Ubuntu; $(elsewhere)))
	@mkdir -p $(@D); echo '$(flags)' | cmp -s - $@ || echo '$(flags)' > $@

# ---- what is missing ---------------------------------------------------------------------------------------------
# Nothing is installed when all is there.  Without what is wanted (oneDNN, packings, the tests' tools) the rest works: CBLAS does the
# products, and tests are skipped by name.
elsewhere = libraries elsewhere are found through PREFIXES=/where/one/is:/and/another and MPICC=/path/to/mpicc
# $(call install_packages,NEEDED,WANTED): as root, or by a sudo that asks nothing; fails where NEEDED cannot be installed
define install_packages
	@needed="$(strip $1)" wanted="$(strip $2)"; sudo= may=; \
	[ -n "$$needed$$wanted" ] || exit 0; \
	! command -v apt-get >/dev/null || { [ "$$(id -u)" = 0 ] && may=1; } || { sudo -n true 2>/dev/null && may=1 sudo="sudo -n"; }; \
	if [ -n "$$may" ]; then \
	    echo "installing: $$needed $$wanted"; \
	    get="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20"; $$get update; \
	    ! $$get install -y --no-install-recommends $$needed $$wanted || exit 0; \
	    [ -z "$$needed" ] || ! $$get install -y --no-install-recommends $$needed || needed=; \
	    for p in $$wanted; do $$get install -y --no-install-recommends $$p || left="$$left $$p"; done; \
	    wanted="$$left"; \
	fi; \
	[ -n "$$needed$$wanted" ] || exit 0; \
	echo "missing (names of Debian and Ubuntu): $$needed $$wanted"; echo "  as root: apt-get install $$needed $$wanted"; \
	[ -n "$$needed" ] || { echo "  without: $(strip $3)"; exit 0; }; \
	echo "  $(elsewhere)"; exit 1
endef

# clang, its libFuzzer and its OpenMP
fuzz_probe = extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }
missing_for_fuzz = $(call no_program,clang++:clang) $(if $(shell echo '$(fuzz_probe)' | \
                   clang++ -fsanitize=fuzzer$(comma)address -fopenmp -x c++ -o /dev/null - 2>/dev/null && echo yes),,libclang-rt-dev libomp-dev)

deps:
	$(call install_packages,$(missing),$(missing_for_tests) $(no_onednn) $(packing_packages),tests that need one are skipped)
fuzz-deps: deps
	$(call install_packages,$(missing_for_fuzz))
slow-deps: deps
	$(call install_packages,,$(no_corpus),tests that need one are skipped)
slurm-deps: deps
	$(call install_packages,$(call no_program,$(slurm_programs)))
demo-deps:
	$(call install_packages,$(missing) $(no_corpus),$(no_onednn) $(packing_packages),it runs all the same)

info:
	@echo "compiler   $(CC) $$($(CC) -dumpfullversion), -march=$(ARCH)$(comma) installed: $(install_arch)$(if $(ASAN),$(comma) address and undefined-behaviour sanitizers)"
	@echo "MPI        $$(mpirun --version 2>/dev/null | head -n 1)"
	@echo "HDF5       $(HDF5_PC) $$(pkg-config --modversion $(HDF5_PC) 2>/dev/null)"
	@echo "products   $(if $(ONEDNN),oneDNN,CBLAS (oneDNN is $(if $(no_onednn),not found,switched off)): OpenBLAS $$(pkg-config --modversion openblas 2>/dev/null))"
	@echo "text       plain, zstd $(PACKINGS)$(if $(no_packing),; not found: $(no_packing))"
	@echo "tokenizer  SentencePiece $$(pkg-config --modversion sentencepiece 2>/dev/null)"
	@echo "GPU        $(if $(NVCC),CUDA $$($(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')$(comma) for $(CUDA_ARCH:%=sm_%),none (CUDA=1 builds for one))"
	@echo "missing    $(or $(strip $(missing) $(missing_for_tests) $(no_onednn) $(packing_packages)),nothing)"

# ---- what is run -------------------------------------------------------------------------------------------------
jobs  = $(if $(findstring j,$(filter-out --%,$(MAKEFLAGS))),,-j$(shell nproc))
again = $(MAKE) --no-print-directory $(if $(Q),-s)
prove = MOAI_BIN=$(BUILD) PYTHON=$(PYTHON) $(if $(call no_program,prove:perl),tests/prove,prove) -j1 $(if $(filter 1,$(V)),-v) --exec tests/run
chosen      = $(sort $(wildcard tests/$(T)*.c tests/$(T)*.sh))
chosen_slow = $(sort $(wildcard tests/slow/$(T)*.c tests/slow/$(T)*.sh))

test: deps
	@$(again) $(jobs) all build-tests
	@$(again) prove-tests
test-slow: slow-deps
	@$(again) $(jobs) all build-tests
	@$(again) prove-slow
fuzz: fuzz-deps
	@$(again) $(jobs) FUZZ=1 build-fuzzers
	@tests/fuzz/run $(FUZZ_S) $(sort $(wildcard tests/fuzz/fuzz-$(filter-out t,$(T))*.c))
test-slurm: slurm-deps
	@$(again) $(jobs) all build-tests
	@$(prove) -j3 $(sort $(filter-out %/lab.sh %/scenario.sh,$(wildcard tests/slurm/*.sh)))
test-gpu: deps
	$(if $(CUDA)$(filter cpu,$(DEVICE)),,$(error $@ needs CUDA=1))
	@$(again) $(jobs) all build-tests
	@$(again) prove-gpu
bench: deps
	@$(again) $(jobs) all build-tests
	@for b in $(sort $(wildcard tests/bench/*.sh)); do MOAI_BIN=$(BUILD) PYTHON=$(PYTHON) tests/run $$b || exit 1; done
bench-gpu: deps
	$(if $(CUDA),,$(error $@ needs CUDA=1))
	@$(again) $(jobs) all build-tests
	@for b in $(cuda_benches:%.c=$(BUILD)/%); do $$b || exit 1; done
	@$(BUILD)/tests/bench/bench-step --plan --model configs/moai-3b.json --bf16 --device cuda --batch_size 2 --gradient_accumulation_steps 16
	@for n in 1 32; do $(BUILD)/tests/bench/bench-decode --plan --model configs/moai-3b.json --bf16 --device cuda --batch_size $$n --seq_length 512; done
demo: demo-deps
	@$(again) $(jobs) all
	@MOAI_BIN=$(BUILD) tests/run configs/demo/demo.sh "$(TEXT)"
demo-sft: demo-deps
	@$(again) $(jobs) all
	@MOAI_BIN=$(BUILD) tests/run configs/demo/sft.sh "$(TEXT)"
demo-data: demo-deps
	@$(again) $(jobs) all
	@MOAI_BIN=$(BUILD) tests/run configs/demo/demo.sh --data-only "$(TEXT)"

prove-tests:
	@$(if $(chosen),$(prove) $(filter tests/$(T)%,$(chosen)),echo "T=$(T): no test is called tests/$(T)*"; exit 1)
prove-gpu:                                # most of their time is programs starting: four at once
	@$(prove) -j4 $(sort $(wildcard tests/gpu/t*.sh)) tests/t2-golden.c tests/t2-segments.c $(shell grep -l battery_open tests/t1-*.c) :: -d $(DEVICE)
prove-slow:
	@$(if $(chosen_slow),$(prove) $(chosen_slow),echo "T=$(T): no test is called tests/slow/$(T)*"; exit 1)

install:
	@$(again) $(jobs) ARCH=$(install_arch) BUILD=$(install_build) all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/moai/configs $(DESTDIR)$(PREFIX)/share/moai/slurm
	install $(binaries:$(BUILD)/%=$(install_build)/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 configs/*.json configs/*.md $(DESTDIR)$(PREFIX)/share/moai/configs
	install slurm/*.sh $(DESTDIR)$(PREFIX)/share/moai/slurm
	install -m 644 slurm/README.md $(DESTDIR)$(PREFIX)/share/moai/slurm
clean:
	rm -rf build build-asan build-fuzz build-x86-64-v3

FORCE:
.PHONY: all build-tests build-fuzzers deps fuzz-deps slow-deps slurm-deps demo-deps demo-sft info test fuzz test-slow test-slurm test-gpu bench bench-gpu demo demo-data prove-tests prove-slow prove-gpu install clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
