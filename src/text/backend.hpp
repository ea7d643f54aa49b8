#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/bpe_vocabulary.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/text/tokenizer_config.hpp"

namespace rometrace {

/// What every kind of tokeniser can do. `text` is UTF-8 and ids are in range: `Tokenizer` has checked.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::vector<Token> encode(std::string_view text, SpecialTokens special) const = 0;
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
  virtual std::string token_bytes(std::int32_t id) const = 0;
  virtual std::int32_t size() const = 0;
  virtual std::span<const std::int32_t> prefix_ids() const = 0;
};

/// For a vocabulary of BpeRules::Alphabet::kBytes. `where` opens the messages. Throws Error.
std::unique_ptr<const Backend> make_byte_level_bpe(const BpeVocabulary& vocabulary, const std::string& where);

/// For one of BpeRules::Alphabet::kCharacters.
std::unique_ptr<const Backend> make_character_bpe(const BpeVocabulary& vocabulary, const std::string& where);

/// Of a serialised model. `where` opens the messages. `tokenizer_json`: one that lies beside the model and says what
/// goes before a prompt; may be absent. Throws Error.
std::unique_ptr<const Backend> make_sentencepiece_model(const std::string& model, const std::string& where,
                                                        const TokenizerConfig& config,
                                                        const std::filesystem::path& tokenizer_json = {});

/// Of a GGUF file, whose keys say it. Throws Error.
std::unique_ptr<const Backend> make_gguf_tokenizer(const std::filesystem::path& file);

}  // namespace rometrace
