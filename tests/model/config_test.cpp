#include "rometrace/model/config.hpp"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

DecoderConfig read(const json& fields) {
  const TemporaryFolder folder;
  return read_config(folder.write("config.json", fields.dump()));
}

/// A good config with some fields changed.
json config_with(const json& changes) {
  json fields = {{"model_type", "gpt2"}, {"architectures", {"GPT2LMHeadModel"}}, {"n_embd", 64}, {"n_head", 4}};
  fields.update(changes);
  return fields;
}

TEST_CASE("fields that are absent have transformers' defaults") {
  const DecoderConfig config = read({{"model_type", "gpt2"}});
  CHECK(config.vocab_size == 50257);
  CHECK(config.max_positions == 1024);
  CHECK(config.width == 768);
  CHECK(config.layers == 12);
  CHECK(config.heads == 12);
  CHECK(config.mlp_width == 3072);
  CHECK(config.activation == Activation::kGeluTanh);
  CHECK(config.layer_norm_epsilon == 1e-5);
  CHECK(config.scale_attn_weights);
  CHECK_FALSE(config.scale_attn_by_inverse_layer_idx);
  CHECK(config.tie_word_embeddings);
  CHECK(config.architecture == "GPT2LMHeadModel");
}

TEST_CASE("every field that changes the computation is read") {
  const DecoderConfig config = read({{"model_type", "gpt2"},
                                     {"architectures", {"GPT2Model"}},
                                     {"vocab_size", 100},
                                     {"n_positions", 32},
                                     {"n_embd", 48},
                                     {"n_layer", 3},
                                     {"n_head", 6},
                                     {"n_inner", 100},
                                     {"activation_function", "relu"},
                                     {"layer_norm_epsilon", 1e-12},
                                     {"scale_attn_weights", false},
                                     {"scale_attn_by_inverse_layer_idx", true},
                                     {"tie_word_embeddings", false}});
  CHECK(config.vocab_size == 100);
  CHECK(config.max_positions == 32);
  CHECK(config.width == 48);
  CHECK(config.layers == 3);
  CHECK(config.heads == 6);
  CHECK(config.mlp_width == 100);
  CHECK(config.activation == Activation::kRelu);
  CHECK(config.layer_norm_epsilon == 1e-12);
  CHECK_FALSE(config.scale_attn_weights);
  CHECK(config.scale_attn_by_inverse_layer_idx);
  CHECK_FALSE(config.tie_word_embeddings);
  CHECK(config.architecture == "GPT2Model");
}

TEST_CASE("the sizes' second names, and n_ctx where it is alone, are understood") {
  const DecoderConfig config = read({{"model_type", "gpt2"},
                                     {"hidden_size", 32},
                                     {"num_attention_heads", 2},
                                     {"num_hidden_layers", 5},
                                     {"max_position_embeddings", 9}});
  CHECK(config.width == 32);
  CHECK(config.heads == 2);
  CHECK(config.layers == 5);
  CHECK(config.max_positions == 9);
  CHECK(read({{"model_type", "gpt2"}, {"n_ctx", 7}}).max_positions == 7);
  CHECK(read({{"model_type", "gpt2"}, {"n_ctx", 7}, {"n_positions", 8}}).max_positions == 8);
  CHECK(read({{"model_type", "gpt2"}, {"n_ctx", 7}, {"max_position_embeddings", 8}}).max_positions == 8);
  CHECK(read({{"model_type", "gpt2"}, {"hidden_size", 24}, {"n_embd", 24}}).width == 24);
}

TEST_CASE("the MLP is four times as wide as the model where n_inner is null") {
  CHECK(read(config_with({{"n_inner", nullptr}})).mlp_width == 256);
  CHECK(read(config_with({{"n_inner", 10}})).mlp_width == 10);
}

TEST_CASE("an activation function goes by all of transformers' names for it") {
  const std::vector<std::pair<const char*, Activation>> cases = {{"gelu_new", Activation::kGeluTanh},
                                                                 {"gelu_fast", Activation::kGeluTanh},
                                                                 {"gelu_pytorch_tanh", Activation::kGeluTanh},
                                                                 {"gelu_python_tanh", Activation::kGeluTanh},
                                                                 {"gelu_accurate", Activation::kGeluTanh},
                                                                 {"gelu", Activation::kGeluErf},
                                                                 {"gelu_python", Activation::kGeluErf},
                                                                 {"quick_gelu", Activation::kGeluQuick},
                                                                 {"relu", Activation::kRelu},
                                                                 {"silu", Activation::kSilu},
                                                                 {"swish", Activation::kSilu},
                                                                 {"tanh", Activation::kTanh},
                                                                 {"sigmoid", Activation::kSigmoid}};
  for (const auto& [name, activation] : cases) {
    CAPTURE(name);
    CHECK(read(config_with({{"activation_function", name}})).activation == activation);
  }
}

TEST_CASE("fields that change nothing in a forward pass are ignored") {
  CHECK_NOTHROW(read(config_with({{"reorder_and_upcast_attn", true},
                                  {"resid_pdrop", 0.5},
                                  {"is_decoder", true},
                                  {"torch_dtype", "float16"},
                                  {"pruned_heads", json::object()},
                                  {"quantization_config", nullptr},
                                  {"add_cross_attention", false},
                                  {"hidden_act", "mish"},
                                  {"task_specific_params", {{"text-generation", {{"do_sample", true}}}}}})));
}

TEST_CASE("a language model is known by model_type, or by its class where that is absent") {
  for (const char* name : {"GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2Model", "TFGPT2LMHeadModel"}) {
    CAPTURE(name);
    CHECK_NOTHROW(read({{"architectures", {name}}}));
  }
  CHECK_NOTHROW(read({{"model_type", "gpt2"}, {"architectures", nullptr}}));
  CHECK_NOTHROW(read({{"model_type", "gpt2"}, {"architectures", json::array()}}));
}

TEST_CASE("a field that cannot be honoured is refused by name, with the value found") {
  const std::vector<std::pair<json, const char*>> cases = {
      {{{"model_type", "llama"}}, "model_type is \"llama\"; only GPT-2 models"},
      {{{"model_type", 2}}, "model_type is 2; only GPT-2 models"},
      {{{"model_type", nullptr}, {"architectures", {"BertModel"}}}, "model_type is absent; only GPT-2 models"},
      {{{"architectures", {"GPT2ForSequenceClassification"}}}, "GPT2ForSequenceClassification\"]; expected a language"},
      {{{"architectures", {"GPT2LMHeadCustomModel"}}}, "architectures is [\"GPT2LMHeadCustomModel\"]; expected"},
      {{{"architectures", "GPT2LMHeadModel"}}, "architectures is \"GPT2LMHeadModel\"; expected a list"},
      {{{"architectures", {1}}}, "architectures is [1]; expected one class name"},
      {{{"n_head", 7}}, "config.json: n_head is 7, which does not divide n_embd 64"},
      {{{"n_head", 0}}, "n_head is 0; expected a whole number from 1 to 268435456"},
      {{{"n_embd", -64}}, "n_embd is -64; expected a whole number from 1"},
      {{{"n_embd", 64.0}}, "n_embd is 64.0; expected a whole number"},
      {{{"n_embd", "64"}}, "n_embd is \"64\"; expected a whole number"},
      {{{"n_embd", nullptr}}, "n_embd is null; expected a whole number"},
      {{{"n_embd", true}}, "n_embd is true; expected a whole number"},
      {{{"n_embd", 4294967296}}, "n_embd is 4294967296; expected a whole number"},
      {{{"n_embd", 18446744073709551615U}}, "n_embd is 18446744073709551615; expected"},
      {{{"n_layer", 10001}}, "n_layer is 10001; expected a whole number from 1 to 10000"},
      {{{"n_layer", 0}}, "n_layer is 0; expected"},
      {{{"vocab_size", 0}}, "vocab_size is 0; expected"},
      {{{"n_positions", 1e30}}, "n_positions is 1e+30; expected"},
      {{{"n_inner", 0}}, "n_inner is 0; expected"},
      {{{"n_ctx", "x"}}, "n_ctx is \"x\"; expected"},
      {{{"hidden_size", 32}}, "hidden_size is 32, but n_embd is 64: two names of one size"},
      {{{"layer_norm_epsilon", 0}}, "layer_norm_epsilon is 0; expected a number above 0"},
      {{{"layer_norm_epsilon", -1e-5}}, "layer_norm_epsilon is -1e-05; expected"},
      {{{"layer_norm_epsilon", "1e-5"}}, "layer_norm_epsilon is \"1e-5\"; expected"},
      {{{"activation_function", "gelu_10"}}, "activation_function is \"gelu_10\"; expected one of gelu_new, gelu_py"},
      {{{"activation_function", nullptr}}, "activation_function is null; expected a string"},
      {{{"scale_attn_weights", 1}}, "scale_attn_weights is 1; expected true or false"},
      {{{"tie_word_embeddings", "yes"}}, "tie_word_embeddings is \"yes\"; expected true or false"},
      {{{"add_cross_attention", true}}, "add_cross_attention is true; expected false"},
      {{{"pruned_heads", {{"0", {1}}}}}, "pruned_heads is {\"0\":[1]}; expected none"},
      {{{"quantization_config", {{"bits", 4}}}}, "quantization_config is {\"bits\":4}; expected none"},
      {{{"transformers_weights", "other.safetensors"}}, "transformers_weights is \"other.safetensors\"; expected none"},
  };
  for (const auto& [changes, expected] : cases) {
    CAPTURE(expected);
    const std::string message = message_of<Error>([&] { read(config_with(changes)); });
    CHECK(message == Contains(expected));
    CHECK(testing::is_one_line(message));
  }
}

TEST_CASE("a config.json that is not an object of fields is refused") {
  const TemporaryFolder folder;
  for (const char* content : {"[]", "3", "null", "\"gpt2\""}) {
    const auto file = folder.write("config.json", content);
    CHECK(message_of<Error>([&] { read_config(file); }) == Contains("config.json: expected an object of fields"));
  }
  CHECK(message_of<Error>([&] { read_config(folder.path() / "none.json"); }) == Contains("none.json: no such file"));
  CHECK(message_of<Error>([&] { read_config(folder.write("c", "{,}")); }) == Contains("line 1, column 2: not JSON"));
}

TEST_CASE("a trained model's config.json gives its shape") {
  const std::filesystem::path file = ROMETRACE_SOURCE_DIR "/../shared/models/gpt2-lyrics/config.json";
  if (!std::filesystem::exists(file)) return;
  const DecoderConfig config = read_config(file);
  CHECK(config.vocab_size == 1000);
  CHECK(config.max_positions == 64);
  CHECK(config.width == 128);
  CHECK(config.layers == 4);
  CHECK(config.heads == 4);
  CHECK(config.mlp_width == 512);
  const std::filesystem::path other = ROMETRACE_SOURCE_DIR "/../shared/models/stories260K-hf/config.json";
  CHECK(message_of<Error>([&] { read_config(other); }) == Contains("model_type is \"llama\""));
}

}  // namespace
}  // namespace rometrace
