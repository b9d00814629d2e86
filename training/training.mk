# Targets of the demo model; included by the Makefile. What each needs beyond .venv it installs where it may:
# Debian's synthesisers and word list, and matplotlib for the picture.

MINUTES ?= 60
PHRASES ?= 20000
DEMO_OUT ?= build/demo
RECORDINGS ?= 24
BASELINE ?=
EVAL_OUT ?= build/demo-eval
TRAIN_FLAGS ?=
PEOPLE ?=
KOKORO ?=
MANIFEST ?=

SPEECH_PACKAGES := libespeak-ng1 flite wamerican
# Real voices that say other words; of use beside the recordings in PEOPLE only.
PEOPLE_PACKAGES := klettres-data ktuberling-data fillets-ng-data-cs tuxpaint-stamps-default \
	asterisk-core-sounds-it-wav asterisk-core-sounds-ru-wav
EXAM_PACKAGES := festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts festlex-cmu festlex-poslex \
	asterisk-core-sounds-en-wav asterisk-core-sounds-es-wav asterisk-core-sounds-fr-wav
comma := ,

define install_missing
	missing=""
	for package in $(1); do dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done
	if test -n "$$missing"; then
		sudo=""
		test "$$(id -u)" = 0 || sudo="sudo -n"
		echo "Installing system packages:$$missing"
		{ $$sudo apt-get update -qq && $$sudo apt-get -o DPkg::Lock::Timeout=120 install -qq -y --no-install-recommends $$missing; } >/dev/null || {
			echo "Install these first: apt-get install$$missing" >&2
			exit 1
		}
	fi
endef

INSTALL_ONNX = $(if $(KOKORO),$(BIN)/python -c 'import onnx; import onnxruntime' 2>/dev/null || $(BIN)/python -m pip install -q onnx onnxruntime)

# What is asked of the bank counts while there is none; it must not seem to count later.
SAY_BANK_STANDS = $(if $(PEOPLE)$(KOKORO)$(MANIFEST),test ! -f $(DEMO_OUT)/bank/index.npz \
	|| echo "$(DEMO_OUT)/bank was spoken before: PEOPLE$(comma) KOKORO and MANIFEST add nothing to it; DEMO_OUT names another folder" >&2)

.PHONY: demo-model demo-eval demo-samples

demo-model: $(INSTALLED) ## train the demo model from nothing (MINUTES= PHRASES= PEOPLE=FOLDER KOKORO=FOLDER MANIFEST=FILE DEMO_OUT= TRAIN_FLAGS="--start-from TOML")
	@$(call install_missing,$(SPEECH_PACKAGES) $(if $(PEOPLE),$(PEOPLE_PACKAGES)))
	$(INSTALL_ONNX)
	$(SAY_BANK_STANDS)
	test -f $(DEMO_OUT)/bank/index.npz || $(BIN)/python -m training bank --bank $(DEMO_OUT)/bank --phrases $(PHRASES) \
		$(if $(PEOPLE),--people $(PEOPLE)) $(if $(KOKORO),--kokoro $(KOKORO)) $(if $(MANIFEST),--manifest $(MANIFEST))
	$(BIN)/python -m training train --bank $(DEMO_OUT)/bank --out $(DEMO_OUT) --minutes $(MINUTES) $(TRAIN_FLAGS)

demo-eval: $(INSTALLED) ## examine the demo model through the service (CONFIG= BASELINE=TOML RECORDINGS= PEOPLE=FOLDER KOKORO=FOLDER EVAL_OUT=)
	@$(call install_missing,$(SPEECH_PACKAGES) $(EXAM_PACKAGES))
	$(INSTALL_ONNX)
	$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install -q -e '.[plots]' || true
	$(BIN)/python -m training eval demo=$(or $(CONFIG),asr_worker/demo/demo.toml) $(if $(BASELINE),before=$(BASELINE)) \
		$(if $(PEOPLE),--people $(PEOPLE)) $(if $(KOKORO),--kokoro $(KOKORO)) --recordings $(RECORDINGS) --out $(EVAL_OUT)

demo-samples: $(INSTALLED) ## make the shipped samples' expected words anew (after a new checkpoint)
	@$(BIN)/python -m training samples asr_worker/demo/demo.toml --out asr_worker/demo/samples
