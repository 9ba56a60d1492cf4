#include "threads.h"

#include "pause.h"

namespace salver {
namespace {

constexpr int kSpinsBeforeSleep = 4000;  // tens of microseconds: the gap between two steps
constexpr int kSpinsBeforeYield = 2000;

}  // namespace

ThreadPool::ThreadPool(int members, ThreadHooks hooks)
    : hooks_(hooks), ranges_(static_cast<std::size_t>(members)) {
  for (int member = 1; member < members; ++member) {
    threads_.emplace_back([this, member] { serve(member); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  loop_.fetch_add(1);
  loop_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(int tasks, const void* body, Call call) {
  const int count = members();
  if (count == 1 || tasks == 1) {
    for (int task = 0; task < tasks; ++task) call(body, task, 0);
    return;
  }
  body_ = body;
  call_ = call;
  unfinished_.store(tasks, std::memory_order_relaxed);
  for (int member = 0; member < count; ++member) {
    const auto first = static_cast<std::uint64_t>(tasks) * member / count;
    const auto end = static_cast<std::uint64_t>(tasks) * (member + 1) / count;
    ranges_[member].unclaimed.store(end << 32 | first, std::memory_order_release);
  }
  loop_.fetch_add(1);
  if (sleepers_.load() > 0) loop_.notify_all();
  work(0);
  for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpinsBeforeYield) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

bool ThreadPool::claim(int range, int* task) {
  std::atomic<std::uint64_t>& unclaimed = ranges_[range].unclaimed;
  std::uint64_t seen = unclaimed.load(std::memory_order_acquire);
  while ((seen & 0xffffffffU) < (seen >> 32)) {
    if (unclaimed.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) {
      *task = static_cast<int>(seen & 0xffffffffU);
      return true;
    }
  }
  return false;
}

void ThreadPool::work(int member) {
  for (int step = 0; step < members(); ++step) {
    const int range = (member + step) % members();
    int done = 0;
    for (int task = 0; claim(range, &task); ++done) call_(body_, task, member);
    if (done > 0) unfinished_.fetch_sub(done, std::memory_order_release);
  }
}

void ThreadPool::serve(int member) {
  if (hooks_.enter) hooks_.enter();
  std::uint32_t seen = 0;
  while (wait_for_loop(seen)) {
    seen = loop_.load();
    work(member);
  }
  if (hooks_.leave) hooks_.leave();
}

// Returns once another loop than `seen` was started; false when the pool is being destroyed.
bool ThreadPool::wait_for_loop(std::uint32_t seen) {
  for (int spins = 0; spins < kSpinsBeforeSleep; ++spins) {
    if (loop_.load(std::memory_order_acquire) != seen) return !stopping_.load();
    pause();
  }
  if (hooks_.leave) hooks_.leave();
  sleepers_.fetch_add(1);
  while (loop_.load() == seen) loop_.wait(seen);
  sleepers_.fetch_sub(1);
  if (hooks_.enter) hooks_.enter();
  return !stopping_.load();
}

}  // namespace salver
