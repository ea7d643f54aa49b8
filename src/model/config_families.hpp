#pragma once

#include <string_view>
#include <vector>

#include "model/config_fields.hpp"
#include "rometrace/model/config.hpp"

// Each family's fields, defaults and old forms are those of its configuration class in transformers 5.

namespace rometrace {

/// What people are told of a family, as KnownFamily has it.
struct FamilyWords {
  std::string_view checkpoints, layers, corrupted;
};

/// One family: its name in config.json, what people are told of it, the classes whose weights are a language model's
/// (without "TF" or "Flax" in front), and who reads its fields.
struct FamilyEntry {
  Family family;
  std::string_view name;
  FamilyWords words;
  std::vector<std::string_view> classes;
  void (*read)(const ConfigFields&, DecoderConfig&);
  std::vector<std::string_view> idle;  ///< fields that change nothing, or nothing beside another that is there
};

/// Gemma 3 with pictures, of which the text's part is traced: a second name of its family.
inline constexpr std::string_view kGemma3WithPictures = "gemma3";

const std::vector<FamilyEntry>& families();

void read_gpt2(const ConfigFields& fields, DecoderConfig& config);
void read_gptj(const ConfigFields& fields, DecoderConfig& config);
void read_gpt_neo(const ConfigFields& fields, DecoderConfig& config);
void read_gpt_neox(const ConfigFields& fields, DecoderConfig& config);
void read_gpt_bigcode(const ConfigFields& fields, DecoderConfig& config);
void read_opt(const ConfigFields& fields, DecoderConfig& config);
void read_bloom(const ConfigFields& fields, DecoderConfig& config);
void read_mpt(const ConfigFields& fields, DecoderConfig& config);
void read_falcon(const ConfigFields& fields, DecoderConfig& config);
void read_llama(const ConfigFields& fields, DecoderConfig& config);
void read_mistral(const ConfigFields& fields, DecoderConfig& config);
void read_qwen2(const ConfigFields& fields, DecoderConfig& config);
void read_qwen3(const ConfigFields& fields, DecoderConfig& config);
void read_gemma(const ConfigFields& fields, DecoderConfig& config);
void read_gemma2(const ConfigFields& fields, DecoderConfig& config);
void read_gemma3(const ConfigFields& fields, DecoderConfig& config);
void read_phi(const ConfigFields& fields, DecoderConfig& config);
void read_phi3(const ConfigFields& fields, DecoderConfig& config);
void read_olmo(const ConfigFields& fields, DecoderConfig& config);
void read_olmo2(const ConfigFields& fields, DecoderConfig& config);
void read_olmo3(const ConfigFields& fields, DecoderConfig& config);
void read_stablelm(const ConfigFields& fields, DecoderConfig& config);
void read_starcoder2(const ConfigFields& fields, DecoderConfig& config);
void read_smollm3(const ConfigFields& fields, DecoderConfig& config);
void read_granite(const ConfigFields& fields, DecoderConfig& config);
void read_cohere(const ConfigFields& fields, DecoderConfig& config);
void read_cohere2(const ConfigFields& fields, DecoderConfig& config);
void read_glm4(const ConfigFields& fields, DecoderConfig& config);
void read_nemotron(const ConfigFields& fields, DecoderConfig& config);
void read_mixtral(const ConfigFields& fields, DecoderConfig& config);
void read_qwen2_moe(const ConfigFields& fields, DecoderConfig& config);
void read_qwen3_moe(const ConfigFields& fields, DecoderConfig& config);
void read_olmoe(const ConfigFields& fields, DecoderConfig& config);
void read_granitemoe(const ConfigFields& fields, DecoderConfig& config);
void read_phimoe(const ConfigFields& fields, DecoderConfig& config);
void read_gpt_oss(const ConfigFields& fields, DecoderConfig& config);

}  // namespace rometrace
