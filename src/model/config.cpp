#include "rometrace/model/config.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "model/config_families.hpp"
#include "model/config_fields.hpp"
#include "model/config_parts.hpp"
#include "model/gguf_config.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

const FamilyEntry& entry_of(Family family) {
  return *std::ranges::find(families(), family, &FamilyEntry::family);
}

// ---- What kind of model it is ----

/// The class that wrote the weights, as the file names it; empty if it names none.
std::string read_architecture(const ConfigFields& fields) {
  if (!fields.has_value("architectures")) return "";
  const json& names = fields.at("architectures");
  if (!names.is_array()) fields.refuse("architectures", "expected a list of class names");
  if (names.empty()) return "";
  if (names.size() != 1 || !names[0].is_string()) fields.refuse("architectures", "expected one class name");
  return names[0].get<std::string>();
}

/// Why models of another kind cannot be traced, where the name tells.
std::string what_it_is(const std::string& model_type) {
  const auto has = [&](std::string_view part) { return model_type.find(part) != std::string::npos; };
  for (const auto* part : {"moe", "mixtral", "deepseek", "gpt_oss", "dbrx", "jamba", "llama4", "grok", "arctic"}) {
    if (has(part)) return " (a mixture of experts)";
  }
  for (const auto* part : {"t5", "bart", "pegasus", "marian", "m2m", "nllb", "whisper", "prophetnet", "fsmt"}) {
    if (has(part)) return " (an encoder-decoder)";
  }
  for (const auto* part : {"bert", "electra", "deberta", "xlnet"}) {
    if (has(part)) return " (an encoder)";
  }
  return "";
}

std::string family_names() {
  std::string names;
  for (const auto& entry : families()) names += std::string(entry.name) + ", ";
  return names.append(kGemma3WithPictures);
}

Family read_family(const ConfigFields& fields, const std::string& architecture) {
  std::optional<Family> found;
  if (fields.has_value("model_type")) {
    for (const auto& entry : families()) {
      if (fields.at("model_type") == entry.name) found = entry.family;
    }
    if (fields.at("model_type") == kGemma3WithPictures) found = Family::kGemma3;
  } else if (architecture.find("GPT2") != std::string::npos) {
    found = Family::kGpt2;  // the first files name no model_type
  }
  if (!found) {
    const bool named = fields.has_value("model_type");
    const auto what = named && fields.at("model_type").is_string()
                          ? what_it_is(fields.at("model_type").get<std::string>())
                          : std::string();
    fields.refuse("model_type is " + (named ? one_line(fields.at("model_type").dump()) : "absent") + what +
                  "; only decoders of these families can be traced: " + family_names());
  }
  if (architecture.empty()) return *found;
  std::string_view name = architecture;
  for (const std::string_view framework : {"TF", "Flax"}) {  // the same weights, saved from another framework
    if (name.starts_with(framework)) name.remove_prefix(framework.size());
  }
  // The classes for classification and question answering were trained away from predicting the next token, and
  // others that call themselves by the family's name compute something else.
  const auto& classes = entry_of(*found).classes;
  if (std::ranges::find(classes, name) != classes.end()) return *found;
  std::string expected;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    expected += (i == 0 ? "" : i + 1 == classes.size() ? " or " : ", ") + std::string(classes[i]);
  }
  fields.refuse("architectures", "expected a language model: " + expected);
}

/// Refuses experts that the family's reader did not ask for.
void check_no_experts(const ConfigFields& fields) {
  const auto unused = fields.unused();
  for (const auto* name : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    const bool asked_for = std::ranges::none_of(unused, [&](const auto& full) { return full.ends_with(name); });
    if (!asked_for && fields.has_value(name) && fields.at(name) != 0) {
      fields.refuse(name, "expected none: a mixture of experts cannot be traced");
    }
  }
}

/// Fields of any family that change the computation in a way that is not computed here.
void check_nothing_unsupported(const ConfigFields& fields, Family family) {
  if (fields.flag("is_encoder_decoder", false)) {
    fields.refuse("is_encoder_decoder", "expected false: encoder-decoders cannot be traced");
  }
  if (fields.flag("add_cross_attention", false)) {
    fields.refuse("add_cross_attention", "expected false: models that attend to an encoder cannot be traced");
  }
  for (const auto* name : {"use_bidirectional_attention", "alibi"}) {
    if (family == Family::kFalcon && std::string_view(name) == "alibi") continue;  // which reads it
    if (fields.has_value(name) && fields.at(name) != false) fields.refuse(name, "expected false");
  }
  if (fields.has("is_causal") && fields.at("is_causal") != true) {  // null, too, means false
    fields.refuse("is_causal", "expected true: queries that see what comes after them are not computed");
  }
  if (fields.has_value("pruned_heads") && !fields.at("pruned_heads").empty()) {
    fields.refuse("pruned_heads", "expected none: models with heads cut out cannot be traced");
  }
  if (fields.has_value("per_layer_config") && !fields.at("per_layer_config").empty()) {
    fields.refuse("per_layer_config", "expected none: layers of several kinds cannot be traced");
  }
  if (fields.has_value("quantization_config") && !fields.at("quantization_config").empty() &&
      !has_microscaled_experts(fields, family)) {
    fields.refuse("quantization_config", "expected none: give the model's unquantised weights");
  }
  if (fields.has_value("transformers_weights")) {
    fields.refuse("transformers_weights", "expected none: the weights are read from files of the usual names");
  }
}

// Fields of any family that change nothing in a forward pass: of generation, of training, of what a call returns, of
// classifiers, of saving.
constexpr std::array kIdleFields = std::to_array<std::string_view>({
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_name_or_path",
    "_num_labels",
    "architectures",  // within text_config, like model_type
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "eos_token_id",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "label2id",
    "length_penalty",
    "line_by_line",
    "max_length",
    "min_length",
    "model_type",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "rope_parameters.finetuned",
    "rope_scaling.finetuned",
    "sep_token_id",
    "suppress_tokens",
    "target_lookbehind",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
});

/// What is to be said of fields that are on no list: neither used, nor refused, nor known to be idle.
std::vector<std::string> remarks_on(const ConfigFields& fields, const FamilyEntry& entry, const std::string& where) {
  constexpr std::size_t kShown = 8;
  std::string names;
  std::size_t count = 0;
  for (const auto& full : fields.unused()) {
    std::string_view name = full;
    if (constexpr std::string_view text = "text_config."; name.starts_with(text)) name.remove_prefix(text.size());
    if (std::ranges::find(kIdleFields, name) != kIdleFields.end()) continue;
    if (std::ranges::find(entry.idle, name) != entry.idle.end()) continue;
    if (count++ < kShown) names += (names.empty() ? "" : ", ") + one_line(full);
  }
  if (count == 0) return {};
  if (count > kShown) names += " and " + std::to_string(count - kShown) + " more";
  return {where + ": these fields are passed over: " + names +
          "; should they change what the model computes, then the numbers are not its own"};
}

}  // namespace

std::int64_t DecoderConfig::longest_prompt() const {
  if (learned_positions > 0 || (rotary.empty() && (!alibi || alibi->ends))) return max_positions;
  constexpr std::int64_t kMost = std::int64_t{1} << 20;
  auto longest = std::max(max_positions, kMost);
  for (const auto& angles : rotary) {
    if (angles.longest > 0) longest = std::min(longest, angles.longest);
  }
  return longest;
}

bool DecoderConfig::is_mixture(std::int64_t layer) const {
  return experts && !std::ranges::binary_search(dense_layers, layer);
}

void refuse_mixtures(const DecoderConfig& config, std::string_view what) {
  if (!config.experts) return;
  throw Error(std::string(what) + " not to be had of " + std::string(to_string(config.family)) +
              ", whose layers are mixtures of experts: what leads out of them is no single matrix; expected a dense "
              "model, or the kinds state, mlp, attn, head and knockout");
}

std::string_view to_string(Family family) {
  return entry_of(family).name;
}

DecoderConfig parse_config(std::string_view text, const std::string& where) {
  json values = parse_json(text, where);
  if (!values.is_object()) throw Error(where + ": expected an object of fields, found " + one_line(values.dump()));
  const ConfigFields fields(std::move(values), where);

  DecoderConfig config;
  const std::string architecture = read_architecture(fields);
  config.family = read_family(fields, architecture);
  const auto& entry = entry_of(config.family);
  config.architecture = architecture.empty() ? std::string(entry.classes.front()) : architecture;
  check_nothing_unsupported(fields, config.family);
  config.embedding_width = 0;
  // A model that sees pictures, too, has its decoder's fields in an object of their own.
  if (config.family == Family::kGemma3 && fields.has_value("text_config")) {
    const auto text_fields = fields.object("text_config");
    check_nothing_unsupported(text_fields, config.family);
    entry.read(text_fields, config);
    check_no_experts(text_fields);
    config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);  // of the whole model
  } else {
    entry.read(fields, config);
  }
  check_no_experts(fields);
  if (config.embedding_width == 0) config.embedding_width = config.width;
  config.attention.resize(static_cast<std::size_t>(config.layers));
  config.remarks = remarks_on(fields, entry, where);
  return config;
}

DecoderConfig read_config(const std::filesystem::path& config_json) {
  return parse_config(read_text_file(config_json), label_of(config_json));
}

DecoderConfig config_of_model(const std::filesystem::path& model) {
  return is_model_file(model) ? read_gguf_config(model) : read_config(model / "config.json");
}

}  // namespace rometrace
