#include "cli/stop_signals.hpp"

#include <unistd.h>

#include <csignal>
#include <thread>

namespace rometrace::cli {

std::stop_token watch_stop_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  std::stop_source source;
  std::thread([signals, source]() mutable {
    int signal = 0;
    while (sigwait(&signals, &signal) == 0) {
      if (!source.request_stop()) _exit(130);
    }
  }).detach();
  return source.get_token();
}

}  // namespace rometrace::cli
